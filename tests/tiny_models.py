"""A complete transformers model folder that is built in a blink."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

# What the tests' data sets say; every other word is spelt out in letters.
WORDS = ["the", "a", "film", "was", "is", "not", "good", "bad", "great", "awful", "warm", "cold"]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def tiny_bert(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2) -> Path:
    """
    Write a bare, randomly initialised BERT with its tokenizer.

    Args:
        folder: where to write; created when missing.
        seed: of the weights.
        hidden: width of the hidden states, a multiple of 4.
        layers: number of transformer layers.

    Returns:
        `folder`, which now holds config.json, model.safetensors and the tokenizer's files.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = BertConfig(
        architectures=["BertModel"],
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    # Not save_pretrained: it draws a progress bar.
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tokenizer() -> Any:
    """Return a lower-casing WordPiece tokenizer of `WORDS`, ASCII letters, digits and points."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    letters = [*string.ascii_lowercase, *string.digits]
    pieces = [*SPECIAL.values(), *WORDS, *letters, *(f"##{letter}" for letter in letters), *".,!?"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = BertWordPieceTokenizer(vocabulary, lowercase=True)
    build: Any = PreTrainedTokenizerFast  # its constructor has no types
    return build(
        tokenizer_object=backend._tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )
