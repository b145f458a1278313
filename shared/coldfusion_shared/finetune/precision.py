"""Which numbers to compute with; the weights themselves stay 32 bits wide."""

from __future__ import annotations

from typing import Literal

import torch

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune.settings import Precision

Chosen = Literal["fp32", "bf16", "fp16"]
Device = Literal["cuda", "mps", "xpu", "cpu"]


def device_kind() -> Device:
    """Return what this machine trains on."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return "xpu"
    return "cpu"


def choose_precision(wanted: Precision) -> Chosen:
    """
    Return the numbers to compute with on this machine.

    Raises:
        InvalidRequest: it cannot compute with `wanted`.
    """
    device = device_kind()
    if wanted == "auto":
        return _quick(device)
    if wanted == "fp16" and device in ("cpu", "mps"):
        raise InvalidRequest(
            "--precision fp16 needs a GPU with CUDA, and there is none.",
            hint="Leave --precision out: it takes what this machine is good at.",
        )
    if wanted == "bf16" and not _knows_bf16(device):
        raise InvalidRequest(
            "This machine does not compute with bf16.",
            hint="Leave --precision out: it takes what this machine is good at.",
        )
    return wanted


def _quick(device: Device) -> Chosen:
    if device == "cuda":
        # Not by emulation, which is slow.
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "bf16" if device == "cpu" and _multiplies_bf16() else "fp32"


def _knows_bf16(device: Device) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device != "mps"


def _multiplies_bf16() -> bool:
    """
    Return whether the processor multiplies bf16 natively: by AMX, or dot products of AVX-512.

    Elsewhere bf16 is slower than float32.
    """
    asks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asks)
