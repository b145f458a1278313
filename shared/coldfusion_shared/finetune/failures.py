"""What torch and the system raise while training, by our names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC

from coldfusion_shared.errors import ColdFusionError, StorageFull, TrainingFailed

# The allocators of CPU, CUDA and Apple's GPUs have no exception class in common.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
# safetensors gives the system's error in its text only.
_DISK_FULL = ("No space left", "os error 28", "Disk quota exceeded")


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn what goes wrong inside torch, transformers and safetensors into our errors."""
    from safetensors import SafetensorError

    try:
        yield
    except ColdFusionError:
        raise
    except (OSError, MemoryError, RuntimeError, SafetensorError) as error:
        raise _named(error) from error


def diverged(step: int, lr: float, precision: str = "fp32") -> TrainingFailed:
    """Say at which step the numbers stopped being finite."""
    other = " fp16 overflows easily, too: try --precision fp32." if precision == "fp16" else ""
    return TrainingFailed(
        f"The training diverged: after step {step} the loss or the weights are not finite.",
        hint=f"Use a lower learning rate, such as --lr {lr / 5:.0e}.{other}",
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
        return TrainingFailed(
            "Finetuning needs more memory than there is.",
            hint="Use a smaller --batch-size or --max-length, or --gradient-checkpointing.",
        )
    reason = (text.strip() or type(error).__name__).splitlines()[0]
    return TrainingFailed(f"Finetuning failed: {reason}")
