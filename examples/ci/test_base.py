"""What a project of your own asks of a base: replace it with what matters to you."""

from __future__ import annotations

import os

import torch
from transformers import AutoModel, AutoTokenizer

BASE = os.environ.get("BASE", "base")


def test_it_encodes_sentences() -> None:
    """One state for each token, and each of them a number."""
    tokenizer, model = AutoTokenizer.from_pretrained(BASE), AutoModel.from_pretrained(BASE)
    batch = tokenizer(["the film was good", "the film was bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    assert states.shape[-1] == model.config.hidden_size
    assert torch.isfinite(states).all()
