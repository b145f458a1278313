"""
An adapter's `adapter_config.json`, read strictly.

peft (https://huggingface.co/docs/peft) writes every setting, with its default where it is not
used. A setting that changes what the tensors mean and is not computed here is refused by its name:
ignored, it would give a wrong update without anybody noticing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from coldfusion_shared.errors import BadModel

T = TypeVar("T", int, float)
# In their order: of several that match the first one counts.
Patterns = tuple[tuple[re.Pattern[str], T], ...]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

MAX_CONFIG_BYTES = 2**20
MAX_RANK = 2**16
MAX_SCALE = 3.4e38  # what float32 holds
MAX_PATTERNS = 2048
MAX_PATTERN = 500
MAX_REPEATING_PATTERNS = 32
MAX_GROUPS, MAX_CHOICES = 2, 32

MERGE_HINT = "Merge it into its model with peft's merge_and_unload(), and contribute that model."

# What says how it was trained, or is told by the tensors themselves.
_HARMLESS = frozenset(
    {
        "task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping",
        "peft_version", "target_modules", "exclude_modules", "lora_dropout", "modules_to_save",
        "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size",
        "runtime_config", "eva_config", "loftq_config", "corda_config", "lora_ga_config",
    }
)  # fmt: skip
_READ = frozenset(
    {
        "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
        "fan_in_fan_out", "bias", "init_lora_weights",
    }
)  # fmt: skip
# Those that leave the base as it is; the others move a part of it into the adapter.
_SOUND_STARTS = ("gaussian", "eva", "orthogonal")
_BIASES = ("none", "all", "lora_only")

# Patterns are regular expressions from anybody: only such as cannot take forever.
_REPEATING = re.compile(r"(?<!\\)[*+?]")
_UNSAFE = re.compile(r"\(\?|[{}]|\)[*+?]|[*+?][*+?]|\\[^.\-_dw]")


@dataclass(frozen=True)
class AdapterConfig:
    """
    What of an adapter's settings says what its tensors mean.

    Attributes:
        rank: of modules that no pattern names.
        alpha: of modules that no pattern names.
        ranks: patterns of module names and their ranks.
        alphas: patterns of module names and their alphas.
        rslora: whether the scale is alpha / sqrt(rank), and not alpha / rank.
        dora: whether each module has a vector of magnitudes.
        transposed: whether its modules keep their matrices as (in, out).
        biases: whether biases were trained, too.
    """

    rank: int
    alpha: float
    ranks: Patterns[int]
    alphas: Patterns[float]
    rslora: bool
    dora: bool
    transposed: bool
    biases: bool

    def of(self, module: str) -> tuple[int, float]:
        """Return the rank of a module of that name, and the factor of its B A."""
        rank = _first_match(self.ranks, module, self.rank)
        alpha = _first_match(self.alphas, module, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rslora else rank)


def parse_config(raw: bytes) -> AdapterConfig:
    """
    Return what the file `raw` says.

    Raises:
        BadModel: it is not the configuration of a LoRA adapter, or of one that cannot be computed
            exactly.
    """
    entries = _load(raw)
    if entries.get("peft_type") != "LORA":
        _refuse(
            f"The adapter is of type {entries.get('peft_type')!r:.40}; only LORA is taken.",
            MERGE_HINT,
        )
    _check_start(entries.get("init_lora_weights", True))
    for name, value in entries.items():
        if value and name not in _HARMLESS | _READ:
            _refuse(
                f"The adapter uses {name[:60]!r}, which cannot be read as an update.", MERGE_HINT
            )
    if (bias := entries.get("bias", "none")) not in _BIASES:
        _refuse(f"{ADAPTER_CONFIG} has an unknown bias: {bias!r:.40}.")
    config = AdapterConfig(
        rank=_rank("r", entries.get("r")),
        alpha=_alpha("lora_alpha", entries.get("lora_alpha")),
        ranks=_patterns(entries, "rank_pattern", _rank),
        alphas=_patterns(entries, "alpha_pattern", _alpha),
        rslora=_flag(entries, "use_rslora"),
        dora=_flag(entries, "use_dora"),
        transposed=_flag(entries, "fan_in_fan_out"),
        biases=bias != "none",
    )
    # No rank makes it larger than alpha itself.
    for alpha in (config.alpha, *(alpha for _, alpha in config.alphas)):
        if not abs(alpha) <= MAX_SCALE:
            _refuse(f"{ADAPTER_CONFIG} has an alpha that no float32 holds: {alpha}.")
    return config


def without_private(raw: bytes) -> bytes:
    """
    Return the file `raw` with what says what the tensors mean, and nothing else.

    Paths, names of data and machines may stand in the rest. Equal adapters become equal files.

    Raises:
        BadModel: as `parse_config`.
    """
    parse_config(raw)
    entries = _load(raw)
    kept = {name: entries[name] for name in sorted(_READ) if entries.get(name) is not None}
    targets = entries.get("target_modules")
    kept["target_modules"] = sorted(targets) if isinstance(targets, list) else targets
    return json.dumps(kept, sort_keys=True, indent=1).encode()


def _load(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_CONFIG_BYTES:
        _refuse(f"{ADAPTER_CONFIG} has {len(raw)} bytes; at most {MAX_CONFIG_BYTES} are taken.")
    try:
        entries: Any = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        _refuse(f"{ADAPTER_CONFIG} is not JSON.", "Save the adapter with save_pretrained().")
    if not isinstance(entries, dict):
        _refuse(f"{ADAPTER_CONFIG} is not a JSON object.")
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name is given twice")
    return result


def _check_start(start: object) -> None:
    if not (isinstance(start, bool) or start is None or start in _SOUND_STARTS):
        _refuse(
            f"The adapter was begun with {start!r:.40}, which changes the base under it.",
            "Convert it with save_pretrained(path_initial_model_for_weight_conversion=...), or "
            "contribute the merged model.",
        )


def _rank(name: str, value: object) -> int:
    # type() and not isinstance: True is an int, too.
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        _refuse(f"{ADAPTER_CONFIG} has an impossible rank for {name[:60]!r}: {value!r:.40}.")
    return value


def _alpha(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        _refuse(f"{ADAPTER_CONFIG} has an alpha for {name[:60]!r} that is no number: {value!r:.40}")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _flag(entries: Mapping[str, Any], name: str) -> bool:
    value = entries.get(name)
    if not (value is None or isinstance(value, bool)):
        _refuse(f"{ADAPTER_CONFIG} has {name} = {value!r:.40}, which is neither true nor false.")
    return bool(value)


def _patterns(
    entries: Mapping[str, Any], name: str, read: Callable[[str, object], T]
) -> Patterns[T]:
    found = entries.get(name) or {}
    if not isinstance(found, dict):
        _refuse(f"{ADAPTER_CONFIG} has a {name} that is no object.")
    if len(found) > MAX_PATTERNS:
        _refuse(f"{ADAPTER_CONFIG} has {len(found)} entries of {name}; {MAX_PATTERNS} are taken.")
    if sum(bool(_REPEATING.search(key)) for key in found) > MAX_REPEATING_PATTERNS:
        _refuse(f"{ADAPTER_CONFIG} has more than {MAX_REPEATING_PATTERNS} wildcards in its {name}.")
    return tuple((_compiled(key, name), read(key, value)) for key, value in found.items())


def _compiled(key: str, name: str) -> re.Pattern[str]:
    """Return what peft matches a module's name with."""
    pattern = _pattern(key) if _is_quick(key) else None
    if pattern is None:
        _refuse(
            f"{ADAPTER_CONFIG} has a {name} that is not taken: {key[:60]!r}.",
            "Name the modules themselves, or use one '.*' in few patterns.",
        )
    return pattern


def _pattern(key: str) -> re.Pattern[str] | None:
    try:
        # By itself first: it must not end the group that it is put into.
        re.compile(key)
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError):
        return None


def _is_quick(pattern: str) -> bool:
    """Return whether no name takes long to match: each group or wildcard multiplies the ways."""
    return (
        len(pattern) <= MAX_PATTERN
        and not _UNSAFE.search(pattern)
        and len(_REPEATING.findall(pattern)) <= 1
        and pattern.count("(") <= MAX_GROUPS
        and pattern.count("|") <= MAX_CHOICES
    )


def _first_match(patterns: Patterns[T], module: str, otherwise: T) -> T:
    return next((value for pattern, value in patterns if pattern.match(module)), otherwise)


def _refuse(message: str, hint: str | None = None) -> NoReturn:
    raise BadModel(message, hint=hint)
