"""transformers and peft, which know nothing of us, push what they have finetuned."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging

log: Any = logging
log.set_verbosity_error()
log.disable_progress_bar()
MODEL, REVISION = sys.argv[1:]


def trained(model: Any) -> Any:
    """Return the model, each value that can be trained a little changed."""
    torch.manual_seed(len(model.state_dict()))
    with torch.no_grad():
        for values in model.parameters():
            if values.requires_grad:
                values.add_(1e-3 * torch.randn_like(values))
    return model


whole: Any = trained(AutoModel.from_pretrained(MODEL))
first = whole.push_to_hub(MODEL, create_pr=True, commit_message="All weights")
older: Any = AutoModel.from_pretrained(MODEL, revision=REVISION)
config = LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"])
adapter: Any = trained(get_peft_model(older, config))
second = adapter.push_to_hub(MODEL, create_pr=True, revision=REVISION, commit_message="An adapter")
# It names the body in another way than the base, and has a head that the base has not.
task: Any = trained(AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=3))
third = task.push_to_hub(MODEL, create_pr=True, commit_message="A task's model")
sys.stdout.write(json.dumps([push.pr_num for push in (first, second, third)]))
