"""Few-shot: the same with a few training examples, so that what the base knows counts more."""

from __future__ import annotations

from coldfusion_shared.evaluate.finetuning import Finetuning
from coldfusion_shared.evaluate.protocols import protocols

# A hundred examples in the usual four epochs make 28 steps, in which a new head learns nothing; and
# epochs of seven steps are too short for early stopping to tell anything by.
USUAL = {"epochs": 20.0, "early_stopping": False}

protocols.register("few-shot")(Finetuning(USUAL, few=True))
