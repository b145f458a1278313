"""What measures, with versions: scores of other versions may differ by a few guesses."""

from __future__ import annotations

from importlib.metadata import version

from coldfusion_shared.evaluate.features import quick_precision

COMPUTING = ("torch", "transformers", "scikit-learn")


def software(program: str) -> str:
    """
    Return what an evaluation is signed with.

    Args:
        program: who measures, with its version.

    Returns:
        it, what computes, and the numbers that this machine is quickest with, as fp32 or bf16.
    """
    parts = [f"{name}/{version(name)}" for name in COMPUTING]
    return " ".join([program, *parts, quick_precision()])
