"""What `fuse` shows: progress, a table, the report and its heat map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coldfusion_server.cli.bars import phase_bars
from coldfusion_server.cli.output import table
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.folders import Job, fuse_folders, named
from coldfusion_shared.fusion.heatmap import check_format, draw_cosines
from coldfusion_shared.fusion.plan import phases
from coldfusion_shared.fusion.report import ContributionReport, Report
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.header import ITEM_BYTES
from coldfusion_shared.weights.tied import fused_tensors

# More columns of cosines do not fit a screen; the heat map has them all.
MAX_COLUMNS = 8


@dataclass(frozen=True)
class Outputs:
    """
    Files beside the model.

    Attributes:
        report: where the report is written as JSON.
        drawings: where the cosines are drawn.
    """

    report: Path | None
    drawings: tuple[Path, ...]

    @classmethod
    def checked(cls, report: Path | None, heatmap: Path | None) -> Self:
        """Return what is to be written; raises `InvalidRequest` before any work is done."""
        beside = None if report is None or heatmap else report.with_suffix(".svg")
        drawings = tuple(path for path in (heatmap, beside) if path is not None)
        if report is not None and report in drawings:
            raise InvalidRequest(f"--report {report.name!r} and its heat map are one file.")
        for drawing in drawings:
            check_format(drawing)
        written = drawings if report is None else (report, *drawings)
        for path in written:
            if not path.absolute().parent.is_dir():
                raise InvalidRequest(f"There is no folder {str(path.parent)!r} for {path.name}.")
            if path.is_dir():
                raise InvalidRequest(f"{str(path)!r} is a folder; a file is to be written.")
        return cls(report, drawings)

    @property
    def draws(self) -> bool:
        """Whether cosines are needed."""
        return bool(self.drawings)

    def write(self, made: Report) -> None:
        """Write the files of the fuse that `made` reports."""
        if self.report is not None:
            self.report.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
        names = [item.name for item in made.contributions]
        for path in self.drawings:
            draw_cosines(path, names, made.cosines or [])


def run(job: Job, threads: int) -> Report:
    """Fuse `job` and show how far it is."""
    with named("The base"), Checkpoint.from_folder(job.base) as base:
        spans = fused_tensors(base, (), heads=job.heads).spans
    size = sum(span.elements * ITEM_BYTES[span.dtype] for span in spans.values())
    total = size * len(job.contributions)
    with phase_bars(phases(job.recipe, with_gram=job.compare), total) as progress:
        return fuse_folders(job, threads, progress)


def text(made: Report, out: Path) -> str:
    """Return the report for a person."""
    head = ["CONTRIBUTION", "WEIGHT", "NORM", "COS TO MEAN", "ZEROS"]
    columns = len(made.contributions) if made.cosines is not None else 0
    shown = columns if columns <= MAX_COLUMNS else 0
    head += [f"COS {place + 1}" for place in range(shown)]
    rows = [
        [*_row(place, item), *(f"{made.cosines[place][other]:+.3f}" for other in range(shown))]
        if made.cosines is not None
        else _row(place, item)
        for place, item in enumerate(made.contributions)
    ]
    return "\n".join([table(head, rows), "", *_remarks(made), _summary(made, out)])


def _row(place: int, item: ContributionReport) -> list[str]:
    weight = "by value" if item.weight is None else f"{item.weight:.4g}"
    if not item.taken:
        weight = "left out"
    return [
        f"{place + 1} {item.name}",
        weight if item.discount == 1 else f"{weight} x {item.discount:.3g}",
        "-" if item.norm is None else f"{item.norm:.4g}",
        "-" if item.cosine_to_mean is None else f"{item.cosine_to_mean:+.3f}",
        "-" if item.zeros is None else f"{100 * item.zeros:.1f}%",
    ]


def _remarks(made: Report) -> list[str]:
    found = []
    for item in made.contributions:
        if item.changed_integers:
            names = ", ".join(item.changed_integers[:3])
            found.append(f"{item.name} changed integers, which are left as the base's: {names}.")
        if item.norm == 0:
            found.append(f"{item.name} is identical to its base.")
    return found


def _summary(made: Report, out: Path) -> str:
    count = len(made.contributions)
    said = f"{count} contribution{'s' if count > 1 else ''} fused by {made.recipe.method}"
    if made.server_lr != 1:
        said += f", server learning rate {made.server_lr:.4g}"
    if made.sign_agreement is not None and count > 1:
        said += f"; signs agree to {100 * made.sign_agreement:.0f}%"
    if made.step_norm is not None and made.base_norm:
        said += f"; the base moves by {100 * made.step_norm / made.base_norm:.3g}% of its norm"
    if made.step_factor is not None:
        said += f", scaled by {made.step_factor:.3g} for --step-cap"
    return f"{said}. The model is in {out}; the report is its fusion.json."
