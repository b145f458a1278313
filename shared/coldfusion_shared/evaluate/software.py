"""What measures, with versions: scores of other versions may differ by a few guesses."""

from __future__ import annotations

from importlib.metadata import version

from coldfusion_shared import __version__
from coldfusion_shared.evaluate.features import quick_precision

LIBRARIES = ("torch", "transformers", "scikit-learn")
# Raised with every change here that gives a base other guesses.
REVISION = 2


def libraries() -> str:
    """Return what computes here, with the versions."""
    return " ".join(f"{name}/{version(name)}" for name in LIBRARIES)


def software(program: str) -> str:
    """
    Return what an evaluation is signed with.

    Args:
        program: who measures, with its version.

    Returns:
        it, what computes, and the numbers that this machine is quickest with, as fp32 or bf16.
    """
    return f"{program} {libraries()} {quick_precision()}"


def kept_by() -> str:
    """Return what kept results depend on: what was measured by others is measured again."""
    return f"coldfusion/{__version__}.{REVISION} {libraries()}"
