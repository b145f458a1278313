"""Tables of a run: arms, claims, data sets; and all of its means and differences as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from experiments.records import Group, Record
from experiments.report.claims import Judged, judged
from experiments.report.document import Table
from experiments.report.finished import Finished

NONE = "–"


def value_text(record: Record | None) -> str:
    """Return a score with its standard error, as 71.3 ± 0.4."""
    if record is None or record.value is None:
        return NONE
    error = "" if record.standard_error is None else f" ± {record.standard_error:.2f}"
    return f"{record.value:.2f}{error}"


def difference_text(record: Record | None) -> str:
    """Return a difference with its interval, as +1.2 (0.4 to 2.0)."""
    if record is None or record.value is None:
        return NONE
    if record.low is None or record.high is None:
        return f"{record.value:+.2f}"
    return f"{record.value:+.2f} ({record.low:+.2f} to {record.high:+.2f})"


def share_text(record: Record) -> str:
    """Return a share of data sets with its interval, as 75% (53% to 90%)."""
    return f"{record.value:.0f}% ({record.low:.0f}% to {record.high:.0f}%)"


def verdict_text(record: Record | None) -> str:
    """Return what can be said of a difference, and of which seeds, where some are left out."""
    if record is None:
        return "not known"
    return f"{_verdict(record)}; {record.note}" if record.note else _verdict(record)


def _verdict(record: Record) -> str:
    if record.low is None or record.high is None:
        return "not known"
    if record.low > 0:
        return "better"
    return "worse" if record.high < 0 else "no difference"


def paper_text(one: Judged) -> str:
    """Return the paper's figure."""
    if one.claim.share is not None:
        return f"{one.claim.share:.0f}%"
    return NONE if one.claim.points is None else f"{one.claim.points:+.2f}"


def found_text(one: Judged) -> str:
    """Return ours."""
    if one.found is not None and one.claim.expects == "most":
        return share_text(one.found)
    return difference_text(one.found)


def claims_table(finished: Finished) -> Table | None:
    """Return the paper's claims beside our figures; null: the protocol is our own."""
    rows = [
        [
            one.claim.text,
            f"{one.claim.scoring}, {one.claim.group}",
            paper_text(one),
            found_text(one),
            one.text,
        ]
        for one in judged(finished)
    ]
    head = ("The paper says", "measured", "paper", "here (95%)", "verdict")
    return Table(head, rows, numbers=(2, 3)) if rows else None


def arms_table(finished: Finished, scoring: str, group: Group) -> Table | None:
    """Return the arms' last means, and their differences to the reference."""
    rows = []
    for arm in finished.arms:
        course = finished.course(arm, scoring, group)
        if not course:
            continue
        found = finished.difference(arm, finished.reference, scoring, group)
        own = arm == finished.reference
        rows.append(
            [
                arm,
                str(course[-1].iteration) if course[-1].iteration else NONE,
                value_text(course[-1]),
                NONE if own else difference_text(found),
                NONE if own else verdict_text(found),
                course[-1].note or "",
            ]
        )
    head = ("arm", "round", "percent", f"less {finished.reference} (95%)", "verdict", "of")
    return Table(head, rows, numbers=(1, 2, 3)) if rows else None


def is_told(finished: Finished, scoring: str, group: Group) -> bool:
    """Return whether a group is another one than all."""
    if group == "all":
        return True
    both = {one.group for one in finished.records if one.scoring == scoring and one.kind == "mean"}
    return {"seen", "unseen"} <= both


def pairs_table(finished: Finished) -> Table | None:
    """Return the differences between arms that are none to the reference."""
    rows = [
        [
            f"{one.arm} less {one.against}",
            f"{one.scoring}, {one.group}",
            difference_text(one),
            verdict_text(one),
        ]
        for one in finished.of_kind("difference")
        if one.group is not None
        and one.against != finished.reference
        and is_told(finished, one.scoring or "", one.group)
    ]
    return (
        Table(("arms", "measured", "points (95%)", "verdict"), rows, numbers=(2,)) if rows else None
    )


def means_csv(runs: Iterable[Finished]) -> str:
    """Return all means and differences as CSV."""
    names = [
        "run", "kind", "protocol", "arm", "against", "iteration", "scoring", "group", "dataset",
        "seen", "value", "standard_error", "low", "high",
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for finished in runs:
        for record in finished.records:
            if record.kind in ("mean", "difference"):
                writer.writerow({"run": finished.stem, **record.model_dump()})
    return out.getvalue()
