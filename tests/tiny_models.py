"""Complete transformers model folders that are built in a blink."""

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


# Architectures of `tiny_model`, and the class that a base of each is usually saved as.
ARCHITECTURES = {
    "bert": "BertModel",
    "roberta": "RobertaForMaskedLM",
    "deberta-v2": "DebertaV2Model",
    "t5": "T5ForConditionalGeneration",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
ENCODERS = ("bert", "roberta", "deberta-v2")
DECODERS = ("llama", "qwen2", "gpt2")


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


def tiny_model(folder: Path, kind: str, *, seed: int = 0, length: int = 64) -> Path:
    """
    Write a randomly initialised model of one of `ARCHITECTURES` with a tokenizer like its own.

    Args:
        folder: where to write; created when missing.
        kind: the model's type.
        seed: of the weights.
        length: tokens that it takes at most.

    Returns:
        `folder`, which now holds config.json, model.safetensors and the tokenizer's files.
    """
    import torch
    import transformers
    from transformers.utils import logging

    tokenizer = _tokenizer() if kind in ("bert", "deberta-v2") else _byte_tokenizer(kind)
    tokenizer.model_max_length = length
    config = _config(kind, tokenizer, length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, ARCHITECTURES[kind])(config)
    tokenizer.save_pretrained(folder)
    log: Any = logging  # its functions have no types
    log.disable_progress_bar()
    # By transformers itself: which tied tensors are in the file is a part of what is tested.
    model.save_pretrained(folder)
    return folder


def _config(kind: str, tokenizer: Any, length: int) -> Any:
    from transformers import AutoConfig

    build: Any = AutoConfig.for_model
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in _KNOWN}
    size = len(tokenizer)
    if kind == "t5":
        return build(
            kind, vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
            dropout_rate=0.0, decoder_start_token_id=ids["pad_token_id"], **ids,
        )  # fmt: skip
    if kind == "gpt2":
        return build(
            kind, vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=length,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
        )  # fmt: skip
    more: dict[str, Any] = {"max_position_embeddings": length}
    if kind == "roberta":
        # Its positions begin after the padding's.
        more = {"max_position_embeddings": length + 2, "type_vocab_size": 1}
    if kind == "deberta-v2":
        more |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 2}
    if kind in DECODERS:
        more |= {"num_key_value_heads": 2, "tie_word_embeddings": kind == "qwen2"}
    return build(
        kind, vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, **more, **ids,
    )  # fmt: skip


_KNOWN = ("pad", "bos", "eos")
# As their tokenizers have them; what is missing there is missing here.
_SPECIAL = {
    "roberta": {
        **{"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        **{"mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"},
    },
    "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    "llama": {"bos_token": "<s>", "eos_token": "</s>"},
    "qwen2": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "gpt2": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
}
_TEMPLATES = {
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "t5": ("$A </s>", "$A </s> $B </s>"),
    "llama": ("<s> $A", "<s> $A $B"),
}


def _byte_tokenizer(kind: str) -> Any:
    """Return a tokenizer of `WORDS`, and of single bytes for everything else."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys(_SPECIAL[kind].values()))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([f"{word} {word} {word}" for word in WORDS], trainer)
    if kind in _TEMPLATES:
        single, pair = _TEMPLATES[kind]
        pieces = [(token, backend.token_to_id(token)) for token in special if token in pair]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=pieces
        )
    build: Any = PreTrainedTokenizerFast  # its constructor has no types
    return build(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        **_SPECIAL[kind],
    )


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
