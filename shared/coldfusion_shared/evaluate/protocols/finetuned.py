"""Finetuned: the whole model learns each data set, and is scored on it."""

from __future__ import annotations

from coldfusion_shared.evaluate.finetuning import Finetuning
from coldfusion_shared.evaluate.protocols import protocols

protocols.register("finetuned")(Finetuning({}))
