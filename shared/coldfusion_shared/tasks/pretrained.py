"""Models and tokenizers from a folder, and nothing but that folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import BadModel
from coldfusion_shared.finetune.failures import memory_exceeded, out_of_memory
from coldfusion_shared.quiet import quiet_transformers
from coldfusion_shared.weights.body import is_head

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.spm")


def load_tokenizer(folder: Path) -> Any:
    """
    Return the tokenizer of a model folder.

    Raises:
        BadModel: there is none, or it cannot fill up the shorter examples of a batch.
    """
    from transformers import AutoTokenizer

    # Without its files transformers makes one up that knows no word.
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES):
        raise BadModel(
            f"The base in {folder} comes without a tokenizer, so nothing can be read with it.",
            hint="Its maintainer has to add the tokenizer's files (tokenizer.json, ...) to it.",
        )
    with _as_bad_model(folder, "tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        # A new token would need a row of the embeddings, which the community's body has not got.
        # No loss or score counts padding, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise BadModel(
            f"The tokenizer in {folder} has no padding token.",
            hint="Set pad_token in its tokenizer_config.json.",
        )
    return tokenizer


def load_model(auto_class: str, folder: Path, **options: Any) -> Any:
    """
    Return a model of a transformers auto class, in float32.

    Args:
        auto_class: its name, such as ``AutoModel``.
        folder: a transformers folder.
        options: what the class's ``from_pretrained`` is given besides.

    Raises:
        BadModel: the folder is no such model, or tensors of its body are missing.
        TrainingFailed: the memory does not suffice for it.
    """
    import transformers

    # transformers would warn that a head is new, which is what finetuning is about.
    quiet_transformers()
    with _as_bad_model(folder, "model"):
        model, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            local_files_only=True,
            # Never a pickle: loading one runs what is in it.
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    if _has_no_body(model, info):
        # Some decoders call their body by other names under some heads.
        body = load_model("AutoModel", folder)
        getattr(model, model.base_model_prefix).load_state_dict(body.state_dict())
    else:
        _require_body(folder, model, info)
    # A finetuning's steps are too small for half precision to add up.
    return model.float()


def longest_input(tokenizer: Any, model: Any, wanted: int) -> int:
    """Return `wanted` tokens, or fewer if the model cannot take as many."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    return int(min(wanted, tokenizer.model_max_length, positions - _unused_positions(model)))


def longest_input_of(folder: Path, tokenizer: Any, wanted: int) -> int:
    """
    Return `longest_input` of the model in `folder`, whose weights are not loaded for that.

    Raises:
        BadModel: it is none that transformers knows.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    with _as_bad_model(folder, "model"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        # Tensors of that device have shapes and no values.
        with torch.device("meta"):
            build: Any = AutoModel  # its functions have no types
            model = build.from_config(config)
    return longest_input(tokenizer, model, wanted)


def _unused_positions(model: Any) -> int:
    """Return how many position embeddings no token has: some models begin behind padding's."""
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def _has_no_body(model: Any, info: dict[str, Any]) -> bool:
    """Return whether nothing of the body was found under the names that the model has for it."""
    prefix = f"{model.base_model_prefix}."
    body = {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    return bool(body) and body <= set(info["missing_keys"])


def _require_body(folder: Path, model: Any, info: dict[str, Any]) -> None:
    """Refuse a body that transformers has filled up with random numbers."""
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    lacking = sorted(
        name
        for name in {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
        # Many bases come without a pooler, which then is a part of the head.
        if name.startswith(prefix) and "pooler" not in name and not is_head(name)
    )
    if lacking:
        raise BadModel(
            f"The weights in {folder} lack what its config.json describes: {len(lacking)} tensors, "
            f"the first {lacking[0]}.",
            hint="Get the model again; its files do not belong together.",
            tensors=lacking,
        )


@contextmanager
def _as_bad_model(folder: Path, what: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (
        *(OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, SafetensorError),
    ) as error:
        if out_of_memory(error):
            raise memory_exceeded() from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadModel(
            f"transformers cannot load the {what} in {folder}: {reason}",
            hint="It must be a transformers folder with config.json, safetensors and tokenizer "
            "files, of an architecture that the task has a head for.",
        ) from error
