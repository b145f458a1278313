"""What transfers cost, as tables, and whether that is what it should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.transfer_runs import (
    BOTH_UP,
    BOTO_DOWN,
    BOTO_UP,
    CP,
    CP_SYNC,
    GET,
    GET_RANGES,
    OURS_DOWN,
    OURS_UP,
    PUT,
    PUT_PARTS,
    SYNCED,
    Run,
)

# With fewer runs a ratio is shown, but no verdict.
ENOUGH_RUNS = 3
# What plans and redirects may weigh beside the model itself.
CONTROL_SHARE = 0.001

# Ours, another's, and the share of its throughput that ours should reach; null: it is only shown.
S3_GOALS = (
    (OURS_UP, PUT, 0.9),
    (OURS_UP, PUT_PARTS, 0.9),
    (BOTH_UP, PUT, None),
    (OURS_UP, BOTO_UP, None),
    (OURS_DOWN, GET, 0.9),
    (OURS_DOWN, GET_RANGES, 0.9),
    (OURS_DOWN, BOTO_DOWN, None),
)
LOCAL_GOALS = (
    (OURS_UP, PUT_PARTS, None),
    (OURS_UP, CP_SYNC, None),
    (OURS_DOWN, GET, None),
    (OURS_DOWN, GET_RANGES, None),
    (OURS_DOWN, CP, 0.6),
    (SYNCED, CP_SYNC, 0.6),
)

Runs = Mapping[str, Sequence[Run]]
Goals = Sequence[tuple[str, str, float | None]]


def local(runs: Runs, size: int) -> list[str]:
    """Return the tables of a store in a folder; each of the `runs` moved `size` bytes."""
    return [*_costs(runs, size), "", *_ratios(runs, LOCAL_GOALS)]


def s3(runs: Runs, size: int) -> list[str]:
    """Return the tables of a bucket."""
    return [*_costs(runs, size), "", *_ratios(runs, S3_GOALS), "", *_network(runs, size)]


def _costs(runs: Runs, size: int) -> list[str]:
    lines = [
        f"{size / 1e6:,.0f} MB, {len(runs[OURS_UP])} interleaved runs.",
        "",
        "| | s: median (least to most) | MB/s | CPU s | peak anonymous MiB |",
        "|---|---|---|---|---|",
    ]
    for name, measured in runs.items():
        seconds = [one.seconds for one in measured]
        spread = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        cpu = _shown([one.cpu for one in measured], median, 1, ".2f")
        peak = _shown([one.anonymous for one in measured], max, 2**20, ".0f")
        lines.append(f"| {name} | {spread} | {size / median(seconds) / 1e6:.0f} | {cpu} | {peak} |")
    return lines


def _shown(
    values: Sequence[float | None],
    chosen: Callable[[Sequence[float]], float],
    unit: float,
    form: str,
) -> str:
    known = [value / unit for value in values if value is not None]
    return format(chosen(known), form) if known else ""


def _ratios(runs: Runs, goals: Goals) -> list[str]:
    lines = ["| throughput, ratio of the medians | measured | goal | |", "|---|---|---|---|"]
    for ours, theirs, wanted in goals:
        own, other = (median(one.seconds for one in runs[name]) for name in (ours, theirs))
        ratio = other / own
        goal, verdict = "", ""
        if wanted is not None:
            goal = f"at least {wanted:g}"
            verdict = _verdict(ratio >= wanted, len(runs[ours]))
        lines.append(f"| {ours}, beside {theirs} | {ratio:.2f} | {goal} | {verdict} |")
    return lines


def _network(runs: Runs, size: int) -> list[str]:
    lines = [
        "| network of the API's process, both ways | kB | share of the model | goal | |",
        "|---|---|---|---|---|",
    ]
    for name in (OURS_UP, OURS_DOWN):
        counted = [one.moved for one in runs[name] if one.moved is not None]
        if not counted:
            return ["The API's network was not counted: that takes root and `ip` (iproute2)."]
        most = max(counted)
        verdict = _verdict(most <= CONTROL_SHARE * size, len(counted))
        lines.append(
            f"| {name} | {most / 1e3:.0f} | {most / size:.4%} | at most {CONTROL_SHARE:.1%} "
            f"| {verdict} |"
        )
    return lines


def _verdict(met: bool, runs: int) -> str:
    if runs < ENOUGH_RUNS:
        return "too few runs to say"
    return "met" if met else "missed"
