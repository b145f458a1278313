"""Which private data sets the contributors have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.readers import load_dataset
from coldfusion_shared.errors import BadData

OWN = Path(__file__).parents[1] / "data"
CONTRIBUTORS = ("alice", "bob", "carol", "dave")
SEED = 13

# Real data are many: what a round takes is capped, so that the demo stays short.
CAPS = {"train": 600, "validation": 100, "test": 300}
# Of a folder with more than four, these; tasks that a round of this size can learn.
PREFERRED = ("tweet_ev_emotion", "isear", "tweet_ev_offensive", "tweet_ev_sentiment")


@dataclass(frozen=True)
class Member:
    """One contributor and what only this one has."""

    name: str
    folder: Path
    dataset: TextDataset


def members(source: Path | None, work: Path) -> list[Member]:
    """
    Return the four contributors with their data.

    Args:
        source: a folder of data sets in the form of ``examples/data``; null: those.
        work: where capped copies go.

    Raises:
        BadData: there are not four data sets that can be read.
    """
    if source is None:
        folders = sorted(path.parent for path in OWN.glob("*/dataset.json"))
    else:
        folders = [_capped(folder, work) for folder in _four(source)]
    return [
        Member(name, folder, load_dataset(str(folder)))
        for name, folder in zip(CONTRIBUTORS, folders, strict=True)
    ]


def _four(source: Path) -> list[Path]:
    found = {path.parent.name: path.parent for path in sorted(source.glob("*/dataset.json"))}
    names = [name for name in PREFERRED if name in found]
    names += [name for name in found if name not in names]
    if len(names) < len(CONTRIBUTORS):
        raise BadData(
            f"{source} has {len(found)} data sets; the demo needs {len(CONTRIBUTORS)}.",
            hint="Each is a folder with dataset.json and train, validation and test.jsonl.",
        )
    return [found[name] for name in names[: len(CONTRIBUTORS)]]


def _capped(folder: Path, work: Path) -> Path:
    dataset = load_dataset(str(folder)).capped(**CAPS, seed=SEED)
    target = work / folder.name
    target.mkdir(parents=True)
    for name in CAPS:
        _write(target / f"{name}.jsonl", getattr(dataset, name))
    description = {"name": folder.name, "labels": list(dataset.labels)}
    (target / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return target


def _write(path: Path, split: Split) -> None:
    roles = sorted(split.columns)
    with path.open("w", encoding="utf-8") as file:
        for values in split.keys(roles):
            row = dict(zip(roles, values, strict=True))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
