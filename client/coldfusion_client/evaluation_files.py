"""A folder with what came of an evaluation: a table, the scores, and a chart of the gains."""

from __future__ import annotations

import json
from pathlib import Path

from coldfusion_client.disk import write_atomically, writing
from coldfusion_client.evaluation.outcome import Outcome
from coldfusion_client.extras import needs_train

TABLE, SCORES = "table.md", "scores.json"
# What there is only of two models.
BEFORE, COMPARISON, CHARTS = "scores-before.json", "comparison.json", ("gain.svg", "gain.png")


def prepare(folder: Path) -> None:
    """
    Make sure, before hours of work, that files and pictures can be written there.

    Raises:
        MissingExtra: nothing is installed that draws.
        OSError: the folder cannot be made.
    """
    with needs_train():
        from coldfusion_shared.evaluate.gain_chart import check_format

        for name in CHARTS:
            check_format(folder / name)
        from coldfusion_shared.evaluate.whole_file import remove_left
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in (TABLE, SCORES, BEFORE, COMPARISON):
        remove_left(folder, name)


def write_files(folder: Path, outcome: Outcome) -> list[Path]:
    """
    Write what came of an evaluation into `folder`, and return the files.

    Those of an earlier evaluation are replaced, or removed where there is nothing to compare.

    Raises:
        StorageFull: no room.
    """
    from coldfusion_shared.evaluate.recycling import recycling_table

    scores = (one.evaluated for one in outcome.measured)
    columns = list(zip(outcome.labels, scores, strict=True))
    texts = {TABLE: recycling_table(columns), SCORES: outcome.newest.evaluated.to_json()}
    if outcome.comparison is not None:
        texts[BEFORE] = outcome.measured[0].evaluated.to_json()
        texts[COMPARISON] = json.dumps(outcome.comparison.document(), indent=1) + "\n"
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    charts = _draw(folder, outcome)
    for name in {BEFORE, COMPARISON, *CHARTS} - {*texts, *charts}:
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in (*texts, *charts)]


def _draw(folder: Path, outcome: Outcome) -> tuple[str, ...]:
    from coldfusion_shared.evaluate.gain_chart import draw_gains

    if outcome.comparison is None:
        return ()
    before, after = outcome.labels
    with writing(folder):
        for name in CHARTS:
            draw_gains(folder / name, outcome.comparison, before, after)
    return CHARTS
