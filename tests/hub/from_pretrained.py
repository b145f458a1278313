"""transformers, which knows nothing of us, loads a base, and once more without the network."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, pipeline
from transformers.utils import logging

log: Any = logging
log.set_verbosity_error()
log.disable_progress_bar()
MODEL, REVISION = sys.argv[1:]


def embedded() -> list[float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL, revision=REVISION)
    model: Any = AutoModel.from_pretrained(MODEL, revision=REVISION)
    with torch.no_grad():
        hidden = model(**tokenizer("the film was good", return_tensors="pt")).last_hidden_state
    return [round(value, 4) for value in hidden[0, 0].tolist()[:4]]


online = embedded()
make: Any = pipeline
# The kind of pipeline is what the model's facts say.
kind = make(model=MODEL, revision=REVISION).task
os.environ["HF_HUB_OFFLINE"] = "1"
sys.stdout.write(json.dumps({"online": online, "offline": embedded(), "kind": kind}))
