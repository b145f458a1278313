"""What torch and the system raise while features are computed, by our names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coldfusion_shared.errors import ColdFusionError, EvaluationFailed
from coldfusion_shared.finetune.failures import out_of_memory


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn what goes wrong inside torch and transformers into our errors."""
    try:
        yield
    except ColdFusionError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise EvaluationFailed(
                "Measuring needs more memory than there is.",
                hint="Measure where there is more, or with a suite of a smaller max_length.",
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EvaluationFailed(f"The base could not be measured: {reason}") from error
