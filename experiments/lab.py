"""Where a protocol works: its settings, data, cache, clock and notebook."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from coldfusion_shared.errors import EvaluationFailed, NonFiniteWeights, TrainingFailed
from coldfusion_shared.evaluate.base_digest import base_digest
from coldfusion_shared.schemas.recipes import Recipe
from experiments.cache import MODEL, Build, Cache, Made
from experiments.data import Data
from experiments.digests import state_digest
from experiments.faults import Unfit, told_apart
from experiments.notebook import Notebook
from experiments.progress import Clock
from experiments.records import Record
from experiments.settings import Settings

# What comes to nothing by the numbers, and not by a mistake of ours.
FAILURES = (TrainingFailed, EvaluationFailed, NonFiniteWeights, Unfit)
PLANNED = "planned:"


class Pending(Exception):
    """What is to be looked at is not made yet: another process is at it, or at what it needs."""


class Busy(Exception):
    """Another process is at a job."""


class Unmade(dict[str, Any]):
    """Facts of what is not made yet: a name for its digest, and nothing else is known."""

    def __missing__(self, key: str) -> Any:
        raise Pending

    def get(self, key: str, default: Any = None) -> Any:
        """Return a fact; raises `Pending` where it is not the digest."""
        return self[key]


@dataclass
class Sweep:
    """
    What came of going once through a protocol, of whose jobs other processes make some.

    Attributes:
        made: jobs that were done, here or by others as we were about to.
        busy: jobs that others were at.
    """

    made: int = 0
    busy: int = 0


@dataclass(frozen=True)
class Model:
    """
    A base, or what somebody has finetuned.

    Attributes:
        digest: of weights, config and tokenizer.
        state: of what it has besides, as a master; "" for nothing.
        folder: where it lies; what had to go is made again.
        facts: what there is to say of how it was made.
    """

    digest: str
    folder: Callable[[], Path] = field(repr=False, compare=False)
    state: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> dict[str, str]:
        """What results of it depend on."""
        return {"digest": self.digest, "state": self.state}


class Served(Protocol):
    """A line that is fused elsewhere."""

    def fused(self, lab: Lab, base: Model, updates: Sequence[Any]) -> Model:
        """Return the base that is made of `base` and `updates`."""


class Repository(Protocol):
    """What fuses elsewhere."""

    def begin(self, lab: Lab, arm: str, seed: int, recipe: Recipe) -> Served | None:
        """Return a line that is fused by `recipe`; null while planning."""


@dataclass
class Lab:
    """
    One run of one protocol.

    Attributes:
        protocol: its name.
        settings: sizes.
        data: the data sets.
        pretrained: the model that all begins with.
        cache: what was made already.
        clock: tells how far it is.
        notebook: takes what was measured.
        machine: what computes, with versions; weights that others make differ in their last bits.
        repository: fuses elsewhere than here; null: here.
        planning: nothing is made yet, only counted.
        sweep: other processes make the same run. What they are at, and what needs that, is passed
            over, and nothing is noted: the run itself does that in the end. null: there are none.
        failed: what came to nothing in a sweep, by the job's key.
    """

    protocol: str
    settings: Settings
    data: Data
    pretrained: Model
    cache: Cache
    clock: Clock
    notebook: Notebook
    machine: str
    repository: Repository | None = None
    planning: bool = False
    sweep: Sweep | None = None
    failed: dict[str, Exception] = field(default_factory=dict)

    @property
    def notes(self) -> bool:
        """Whether what is measured is written down."""
        return not self.planning and self.sweep is None

    @property
    def seeds(self) -> range:
        """The lines' seeds."""
        first = self.settings.first_seed
        return range(first, first + self.settings.seeds)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count, during the block, what is to be made, and make nothing."""
        self.planning = True
        try:
            yield
        finally:
            self.planning = False

    def make(
        self, kind: str, what: str, inputs: Mapping[str, Any], cost: float, build: Build
    ) -> Made:
        """
        Return what `build` makes of `inputs`, from the cache where it is there.

        Args:
            kind: of jobs, such as "finetune".
            what: it is, for people.
            inputs: all that it depends on, as JSON can say it.
            cost: how much work it is, in the kind's own unit.
            build: fills a folder and returns facts; it raises one of `FAILURES`.

        Raises:
            Fault: it cannot be made, and that says nothing of what it is made of.
        """
        key = self.cache.key(kind, inputs)
        if found := self.cache.find(kind, inputs):
            self.clock.settle(kind, key)
            return found
        if self.planning:
            self.clock.expect(kind, key, cost)
            return Made(Path(PLANNED + key), {"digest": PLANNED + key})

        def timed(folder: Path) -> dict[str, Any]:
            with self.clock.job(kind, key, cost, what):
                return build(folder)

        if self.sweep is not None:
            return self._swept(self.sweep, kind, what, key, inputs, timed)
        with told_apart(kind, what):
            made = self.cache.make(kind, inputs, timed, partial(self.clock.wait, kind, what))
        # Where another process has made it meanwhile.
        self.clock.settle(kind, key)
        return made

    def _swept(
        self,
        sweep: Sweep,
        kind: str,
        what: str,
        key: str,
        inputs: Mapping[str, Any],
        build: Build,
    ) -> Made:
        """Make a job that nobody else is at and whose inputs are there; pass over any other one."""
        unmade = Made(Path(PLANNED + key), Unmade(digest=PLANNED + key))
        if f'"{PLANNED}' in json.dumps(inputs):
            return unmade
        if key in self.failed:
            raise self.failed[key].with_traceback(None)
        try:
            with told_apart(kind, what):
                made = self.cache.make(kind, inputs, build, _is_busy)
        except Busy:
            sweep.busy += 1
            return unmade
        except FAILURES as error:
            # It would come to the same in every sweep. What it was made with need not be kept.
            error.__cause__ = error.__context__ = None
            self.failed[key] = error.with_traceback(None)
            raise self.failed[key] from None
        sweep.made += 1
        self.clock.settle(kind, key)
        return made

    def make_model(
        self, kind: str, what: str, inputs: Mapping[str, Any], cost: float, build: Build
    ) -> Model:
        """Return the model that `build` writes into the folder ``model`` of the one it is given."""

        def built(folder: Path) -> dict[str, Any]:
            facts = build(folder)
            made = folder / MODEL
            return {**facts, "digest": base_digest(made), "state": state_digest(made)}

        made = self.make(kind, what, inputs, cost, built)
        return Model(
            made.facts["digest"],
            lambda: self.cache.weights(kind, inputs, built, partial(self.clock.wait, kind, what)),
            "" if isinstance(made.facts, Unmade) else made.facts.get("state", ""),
            made.facts,
        )

    @contextmanager
    def failing(self, arm: str, iteration: int = 0, seed: int | None = None) -> Iterator[None]:
        """Note what comes to nothing in the block, and go on behind it; so where it has to wait."""
        try:
            yield
        except Pending:
            return
        except FAILURES as error:
            self.note("failure", arm, iteration=iteration, seed=seed, note=error.message)

    def note(self, kind: Any, arm: str, **values: Any) -> None:
        """Write a record; nothing while planning, or in a sweep."""
        if self.notes:
            self.notebook.add(Record(kind=kind, protocol=self.protocol, arm=arm, **values))


def _is_busy() -> None:
    raise Busy


def model_in(folder: Path) -> Model:
    """Return the model in a transformers folder; raises `BadModel`."""
    return Model(base_digest(folder), lambda: folder, state_digest(folder))
