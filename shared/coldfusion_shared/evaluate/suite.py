"""Suites: files that say which data sets, limits and settings scores are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from coldfusion_shared.data.dataset import TextDataset
from coldfusion_shared.data.readers import load_dataset
from coldfusion_shared.errors import BadData, BadSuite, SuiteChanged, UnknownName
from coldfusion_shared.evaluate.drawing import drawn
from coldfusion_shared.evaluate.metrics import metrics_of
from coldfusion_shared.evaluate.suite_file import (
    Entry,
    SuiteFile,
    as_yaml,
    place_of,
    read_suite_file,
    write_digests,
)
from coldfusion_shared.schemas.evaluations import Suite, SuiteDataset

Say = Callable[[str], None]
# Of a digest, what a message shows.
SHOWN = 12


@dataclass(frozen=True)
class SuiteData:
    """
    One data set of a suite, before a seed draws its training examples.

    Attributes:
        entry: what the suite says of it.
        dataset: its whole training part; validation and test as they are scored.
        few_shot: examples that the few-shot protocol trains on, where there are as many.
    """

    entry: SuiteDataset
    dataset: TextDataset
    few_shot: int

    @property
    def few_train(self) -> int:
        """How many training examples a seed of the few-shot protocol has."""
        return min(self.few_shot, len(self.dataset.train))

    def draw(self, seed: int) -> TextDataset:
        """Return the data set with the training examples of that seed."""
        return self._drawn(self.entry.train, seed)

    def few(self, seed: int) -> TextDataset:
        """Return the data set with the few training examples of that seed."""
        return self._drawn(self.few_train, seed)

    def _drawn(self, size: int, seed: int) -> TextDataset:
        return replace(self.dataset, train=drawn(self.dataset.train, size, seed))


@dataclass(frozen=True)
class LoadedSuite:
    """
    A suite and its data.

    Attributes:
        suite: as it is registered and compared, with all its digests.
        datasets: in the suite's order.
    """

    suite: Suite
    datasets: tuple[SuiteData, ...]


def read_suite(path: Path, say: Say = lambda sentence: None) -> LoadedSuite:
    """
    Read the suite file at `path`, and all its data.

    Args:
        path: a YAML file.
        say: told in a sentence what a person should know, such as that a validation part was made
            of training examples.

    Raises:
        BadSuite: the file or one of its data sets cannot be used; file and place are said.
        SuiteChanged: the data are not those that the file was pinned to.
    """
    file = read_suite_file(path)
    loaded = _read(path, file, say)
    for index, entry in enumerate(file.datasets):
        found = loaded.datasets[index].entry.digest
        if entry.digest not in (None, found):
            raise SuiteChanged(
                f"{path}, {place_of(file, index)}: these are not the data that the suite is "
                f"pinned to: their digest is {found[:SHOWN]}..., not {entry.digest[:SHOWN]}....",
                hint="Scores of other data cannot be compared. Get the data back as they were; or, "
                "if they are meant to be other ones, give the suite a new name, then pin it again "
                "(evaluate --pin).",
            )
    return loaded


def pin(path: Path, say: Say = lambda sentence: None) -> LoadedSuite:
    """
    Read the suite as `read_suite` does and write the digests of its data into the file.

    Digests that the file has are replaced, and `say` is told so; all else in it stays as it is
    written.

    Raises:
        BadSuite: as `read_suite` does, or the file cannot be written.
    """
    file = read_suite_file(path)
    loaded = _read(path, file, say)
    for entry, data in zip(file.datasets, loaded.datasets, strict=True):
        if entry.digest not in (None, data.entry.digest):
            say(
                f"{data.entry.name}: pinned to other data than before. Scores of the two cannot be "
                "compared; a suite with other data should have another name."
            )
    write_digests(path, [data.entry.digest for data in loaded.datasets])
    return loaded


def _read(path: Path, file: SuiteFile, say: Say) -> LoadedSuite:
    datasets: list[SuiteData] = []
    for index, entry in enumerate(file.datasets):
        try:
            data = _read_data(path.parent, file, entry, say)
        except (BadData, UnknownName, BadSuite) as error:
            where = f"{path}, {place_of(file, index)}"
            hint = as_yaml(error.hint) if error.hint else None
            raise BadSuite(f"{where}: {as_yaml(error.message)}", hint=hint) from error
        if data.entry.name in [other.entry.name for other in datasets]:
            raise BadSuite(
                f"{path}, {place_of(file, index)}: another data set of the suite is called "
                f"{data.entry.name!r}, too.",
                hint="Give one of them another name, with name: NAME.",
            )
        datasets.append(data)
    suite = Suite(
        name=file.name,
        datasets=[data.entry for data in datasets],
        max_length=file.max_length,
        seed=file.seed,
        few_shot=file.few_shot,
        training=file.settings(),
    )
    return LoadedSuite(suite, tuple(datasets))


def _read_data(folder: Path, file: SuiteFile, entry: Entry, say: Say) -> SuiteData:
    whole = load_dataset(
        _source(folder, entry.data),
        columns=entry.columns,
        task=entry.task,
        seed=file.seed,
        # Made of training examples, it would be part of them for whoever contributes.
        required=("test",),
    )
    # The first note says which columns are read.
    for note in whole.notes[1:]:
        say(f"{entry.name or whole.name}: {note}")
    limits = file.limits
    dataset = whole.capped(validation=limits.validation, test=limits.test, seed=file.seed)
    try:
        described = SuiteDataset(
            name=entry.name or whole.name,
            task=whole.task,
            metric=_metric(whole.task, entry.metric),
            labels=len(whole.labels),
            seen=entry.seen,
            train=min(limits.train, len(dataset.train)),
            validation=len(dataset.validation),
            test=len(dataset.test),
            digest=whole.digest,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadSuite(
            f"its {fault['loc'][0]} cannot be used: {fault['msg']}.",
            hint="Give it a name of up to 100 characters, with name: NAME.",
        ) from None
    return SuiteData(described, dataset, file.few_shot)


def _source(folder: Path, data: str) -> str:
    """Return what to read: a path from the suite's folder on, or a name of the Hub as it is."""
    try:
        path = folder / Path(data).expanduser()
        if path.exists():
            return str(path)
        elsewhere = Path(data).exists()
    # Such as the home folder of somebody who is not here, and names that are too long.
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "whose home folder is not known"
        raise BadSuite(
            f"{data!r:.120} is no path that can be read: {reason}.",
            hint="Check the path and the spelling.",
        ) from None
    if elsewhere:
        raise BadSuite(
            f"there is no {path}.",
            hint="Paths begin at the suite file's folder, not at the current one.",
        )
    return data


def _metric(task: str, wanted: str | None) -> str:
    fitting = metrics_of(task)
    if wanted is not None and wanted not in fitting:
        raise BadSuite(
            f"the metric {wanted!r} does not fit the task {task}.",
            hint=f"Fitting are: {', '.join(fitting)}.",
        )
    return wanted or fitting[0]
