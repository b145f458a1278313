"""What kind of transformer a base is, by its config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

from coldfusion_shared.errors import BadModel

Architecture = Literal["encoder", "decoder", "encoder-decoder"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

# By model_type. What is in neither set and says nothing of itself is taken for an encoder.
_DECODERS = frozenset(
    (
        *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gpt2"),
        *("gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "gemma", "gemma2", "gemma3"),
        *("gemma3_text", "phi", "phi3", "mpt", "olmo", "olmo2", "olmo3", "starcoder2", "stablelm"),
        *("smollm3", "granite", "cohere", "cohere2", "codegen", "gpt_bigcode", "gpt_oss", "xglm"),
        *("mamba", "mamba2", "deepseek_v2", "deepseek_v3", "glm", "glm4", "openai-gpt"),
    )
)
_ENCODER_DECODERS = frozenset(
    (
        *("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "blenderbot", "led"),
        *("longt5", "m2m_100", "prophetnet", "bigbird_pegasus", "switch_transformers", "t5gemma"),
    )
)


def require_architecture(base: Path, task: str, wanted: tuple[Architecture, ...]) -> None:
    """Refuse (`BadModel`) the model in the folder `base` if it is none of those that `task` can."""
    found = architecture_of(base / "config.json")
    if found not in wanted:
        raise BadModel(
            f"The task {task} is for bases of the kind {' or '.join(wanted)}; this one's is "
            f"{found}.",
            hint="Take another base or another task.",
        )


def architecture_of(config: Path) -> Architecture:
    """
    Return what a model is by its `config` file; raises `BadModel` if that cannot be read.

    The classes that wrote the file count first: a head for causal language modelling is a
    decoder's, whatever the model's type is called.
    """
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(
            f"{config} is no readable config.json.", hint="Get the model again."
        ) from error
    if not isinstance(content, dict):
        raise BadModel(f"{config} is no readable config.json.", hint="Get the model again.")
    model_type = str(content.get("model_type"))
    if content.get("is_encoder_decoder") or model_type in _ENCODER_DECODERS:
        return "encoder-decoder"
    written_by = content.get("architectures") or ()
    causal = any(str(name).endswith("ForCausalLM") for name in written_by)
    return "decoder" if causal or model_type in _DECODERS else "encoder"
