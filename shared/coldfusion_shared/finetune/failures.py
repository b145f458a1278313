"""What torch and the system raise while training, by our names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC

from coldfusion_shared.errors import ColdFusionError, StorageFull, TrainingFailed

# The allocators of CPU, CUDA and Apple's GPUs have no exception class in common, and safetensors
# and mmap give the system's error in their texts.
_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory"),
    *("os error 12", "ALLOC_FAILED", "failed to map segment"),
)
_DISK_FULL = ("No space left", "os error 28", "Disk quota exceeded")
# With which hardly a model diverges: who tried a hundred times as much need not grope down to it.
SAFE_LR = 1e-4


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn what goes wrong inside torch, transformers and safetensors into our errors."""
    from safetensors import SafetensorError

    try:
        yield
    except ColdFusionError:
        raise
    except ImportError as error:
        # A library that is there and cannot be loaded; the others lack an extra.
        if out_of_memory(error):
            raise memory_exceeded() from error
        raise
    except (OSError, MemoryError, RuntimeError, SafetensorError) as error:
        raise _named(error) from error


def diverged(step: int, lr: float, precision: str = "fp32") -> TrainingFailed:
    """Say at which step the numbers stopped being finite, and offer a rate with which they may."""
    other = " fp16 overflows easily, too: try --precision fp32." if precision == "fp16" else ""
    return TrainingFailed(
        f"The training diverged: after step {step} the loss or the weights are not finite.",
        hint=f"Use a lower learning rate, such as --lr {min(lr / 5, SAFE_LR):.0e}.{other}",
    )


def memory_exceeded() -> TrainingFailed:
    """Return what is raised where even one example at a time is too much."""
    return TrainingFailed(
        "Finetuning needs more memory than there is.",
        hint="Use a smaller --batch-size or --max-length, or --gradient-checkpointing.",
    )


def out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator could not give what was asked of it."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _named(error: Exception) -> ColdFusionError:
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
    if full or any(sign in text for sign in _DISK_FULL):
        return StorageFull(
            "The disk is full; the finetuned model could not be written.",
            hint="Free some space, or choose another folder with --output, and run it again.",
        )
    if out_of_memory(error):
        return memory_exceeded()
    reason = (text.strip() or type(error).__name__).splitlines()[0]
    return TrainingFailed(f"Finetuning failed: {reason}")
