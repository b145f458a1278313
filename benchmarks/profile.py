"""
Where the CPU time of a fuse goes: ``python -m benchmarks.profile [--method NAME]...``.

By sampling: a timer that runs on CPU time stops the one thread every few milliseconds and notes
the function that it is in. That costs next to nothing, where cProfile doubled the time. What
numpy and the kernel do counts towards the function of ours that asks for it (an operator's time
towards the function that makes the next call, mostly the same); imports are left out.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks import fuse_once
from benchmarks.models import write_models
from coldfusion_shared.schemas.recipes import Recipe

METHODS = ("mean", "mean+gram", "median", "ties")
LEAST_SHARE = 0.02
SAMPLE_SECONDS = 0.004


def main() -> int:
    """Profile what is asked for, print a table for each, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="for models")
    parser.add_argument("--contributions", type=int, default=8, help="models to fuse")
    parser.add_argument("--layers", type=int, default=12, help="12: the size of RoBERTa-base")
    parser.add_argument("--repeats", type=int, default=5, help="fuses to sample")
    parser.add_argument("--method", action="append", help="NAME or NAME+gram; can be repeated")
    options = parser.parse_args()
    folder = options.folder / f"roberta{options.layers}"
    base, models = write_models(folder, options.contributions, options.layers)
    out = options.folder / "profiled.safetensors"
    for method in options.method or METHODS:
        name, _, gram = method.partition("+")
        recipe = Recipe(method=name)

        def fuse(recipe: Recipe = recipe, gram: str = gram) -> None:
            fuse_once.main(recipe, bool(gram), 1, out, base, models)

        sys.stdout.write("\n".join(_table(method, fuse, options.repeats)) + "\n\n")
    out.unlink()
    return 0


def _table(method: str, fuse: Callable[[], None], repeats: int) -> list[str]:
    fuse()  # for the caches, and for the methods' imports
    plain = min(_seconds(fuse) for _ in range(repeats))
    samples: Counter[str] = Counter()
    sampled = sum(_sampled(fuse, samples) for _ in range(repeats)) / repeats
    count = samples.total()
    head = f"{method}: {plain:.2f} CPU s, {sampled:.2f} while sampled, {count} samples"
    lines = [f"| {head} | CPU s | share |", "|---|---|---|"]
    shown = [(name, n / count) for name, n in samples.most_common() if n >= LEAST_SHARE * count]
    rest = 1 - sum(share for _, share in shown)
    for name, share in [*shown, ("all else", rest)]:
        lines.append(f"| {name} | {share * sampled:.2f} | {share:.0%} |")
    return lines


def _seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _sampled(work: Callable[[], None], samples: Counter[str]) -> float:
    """Count into `samples` where `work` spends its time, and return its CPU seconds."""

    def note(_: int, frame: FrameType | None) -> None:
        while frame is not None and not _is_ours(frame):
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            samples[f"{Path(code.co_filename).stem}: {code.co_qualname}"] += 1

    before = signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
    try:
        return _seconds(work)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(("coldfusion_", "benchmarks"))


if __name__ == "__main__":
    sys.exit(main())
