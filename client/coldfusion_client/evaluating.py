"""
The evaluator's work: measure bases, or models of this machine, on a suite, and post the scores.

Features and results are kept in the cache: a run that was interrupted goes on, and what was
measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_client.api import Api
from coldfusion_client.bases import Source, base_folder, find_base
from coldfusion_client.cache import Cache
from coldfusion_client.connection import USER_AGENT
from coldfusion_client.extras import needs_train
from coldfusion_client.permission import check_evaluator
from coldfusion_client.reporting import Reporter
from coldfusion_client.subjects import SCORES_SUFFIX, BaseName, Subject
from coldfusion_shared.errors import (
    BaseNotFound,
    InvalidRequest,
    ModelNotFound,
    SuiteChanged,
    SuiteNotFound,
)
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.evaluations import MOST_SEEDS, Evaluation, Suite

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.comparison import Comparison
    from coldfusion_shared.evaluate.results import Evaluated
    from coldfusion_shared.evaluate.suite import LoadedSuite

# In the cache: features, and the results of each base, data set and seed.
KEPT_FOLDER = "evaluations"
PRETRAINED = "v0"

Progress = Callable[[float, int, str], None]


@dataclass(frozen=True)
class Order:
    """
    What an evaluator asks for.

    Attributes:
        subjects: one, or two of which the second is compared with the first.
        suite: the suite's file.
        protocol: frozen, finetuned or few-shot.
        seeds: how many; each draws the training examples anew.
        gain: compare a single base with the model's v0.
        pin: write the data's digests into the suite's file first.
        post: hand the scores in.
    """

    subjects: tuple[Subject, ...]
    suite: Path
    protocol: str = "frozen"
    seeds: int = 3
    gain: bool = False
    pin: bool = False
    post: bool = False


@dataclass(frozen=True)
class Place:
    """Where models are measured: the cache, who is told, and the server where one is needed."""

    cache: Cache
    reporter: Reporter
    api: Api | None = None

    @property
    def source(self) -> Source:
        """The server, which is there wherever a base is named."""
        assert self.api is not None, "bases are measured beside a server"
        return Source(self.api, self.cache, self.reporter)


@dataclass(frozen=True)
class Measured:
    """
    A model and its scores.

    Attributes:
        name: what people call it.
        base: which base it is; null: it is of this machine alone.
        asked: whether it was asked for, or is only what another one is compared with.
        evaluated: the scores.
    """

    name: str
    base: Base | None
    asked: bool
    evaluated: Evaluated

    @property
    def label(self) -> str:
        """The name, without what the same model's other bases, or other folders, have in common."""
        return self.base.version if self.base else _last(self.name)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, without the guesses."""
        found = self.evaluated
        return {
            "name": self.name,
            "model": self.base and self.base.model,
            "version": self.base and self.base.version,
            "average": found.average,
            "standard_error": found.standard_error,
            "datasets": [
                {
                    "name": one.name,
                    "metric": one.metric,
                    "seen": one.seen,
                    "score": one.score,
                    "standard_error": one.standard_error,
                    "by_seed": list(one.by_seed),
                }
                for one in found.results
            ],
        }


@dataclass(frozen=True)
class Outcome:
    """
    What came of it.

    Attributes:
        measured: one model, or two of which the second is compared with the first.
        comparison: of the two.
    """

    measured: tuple[Measured, ...]
    comparison: Comparison | None = None

    @property
    def newest(self) -> Measured:
        """The model that was asked for, the second of two."""
        return self.measured[-1]

    @property
    def labels(self) -> tuple[str, ...]:
        """What the models are called in a table: as short as it can be."""
        short = tuple(one.label for one in self.measured)
        return short if len(set(short)) == len(short) else tuple(one.name for one in self.measured)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it, without the guesses."""
        found = self.newest.evaluated
        return {
            "suite": found.suite.name,
            "suite_digest": found.suite.digest(),
            "protocol": found.protocol,
            "metric": found.metric,
            "seeds": list(found.seeds),
            "models": [one.document() for one in self.measured],
            "comparison": self.comparison and self.comparison.document(),
        }


@dataclass(frozen=True)
class _Found:
    """A subject that is there: a base that is still to be brought, a folder, or known scores."""

    name: str
    asked: bool = True
    base: Base | None = None
    folder: Path | None = None
    scores: Evaluated | None = None


def evaluate(order: Order, place: Place) -> Outcome:
    """
    Measure what is asked for, and compare it where there are two.

    All that can be refused is refused before anything is computed.

    Raises:
        Forbidden: the scores are to be posted, and the token is no evaluator's.
        BadSuite: the suite, or data that it names, cannot be used.
        SuiteChanged: the data are not those that the suite is pinned to, or the server knows
            another suite of that name.
        UnknownName, InvalidRequest: there is no such protocol, or the numbers make no sense.
        ModelNotFound, BaseNotFound: there is no such base.
        BadModel: a folder is no model that can be measured.
        EvaluationFailed, TrainingFailed: a model could not be measured.
    """
    with needs_train():
        from coldfusion_shared.evaluate.comparison import compare

        _check(order, place)
        loaded = _read(order, place)
        if order.post:
            _check_known(place.source.api, loaded.suite)
        found = _found(order, place)
        measured = tuple(_measured(one, order, loaded, place) for one in found)
        if len(measured) == 1:
            return Outcome(measured)
        return Outcome(measured, compare(*(one.evaluated for one in measured)))


def post(outcome: Outcome, place: Place) -> list[Evaluation]:
    """
    Hand in the scores of the bases that were asked for, and make their suite known before.

    Done again it changes nothing.

    Raises:
        BaseNotFound: a base is no longer there.
        SuiteChanged: the server knows another suite of that name by now.
        Forbidden: the token is no evaluator's any more.
    """
    return [
        _posted(one.base, one.evaluated, place)
        for one in outcome.measured
        if one.asked and one.base is not None
    ]


def _check(order: Order, place: Place) -> None:
    from coldfusion_shared.evaluate.protocols import protocol_named

    protocol_named(order.protocol)
    if not 1 <= order.seeds <= MOST_SEEDS:
        raise InvalidRequest(
            f"{order.seeds} seeds cannot be taken.", hint=f"Take 1 to {MOST_SEEDS}, such as 3."
        )
    if order.post and not all(isinstance(one, BaseName) for one in order.subjects):
        raise InvalidRequest(
            "Only scores of a server's own bases can be posted.",
            hint="Leave --post out to measure a folder of this machine.",
        )
    if order.post:
        check_evaluator(place.source.api.whoami())


def _read(order: Order, place: Place) -> LoadedSuite:
    from coldfusion_shared.evaluate.suite import pin, read_suite

    read = pin if order.pin else read_suite
    return read(order.suite, place.reporter.say)


def _check_known(api: Api, suite: Suite) -> None:
    try:
        known = api.suite(suite.name)
    except SuiteNotFound:
        return
    if known.digest == suite.digest():
        return
    changed = [repr(one.name) for one in suite.datasets if one not in known.suite.datasets]
    raise SuiteChanged(
        f"{api.server} knows another suite {suite.name!r}, by {known.registered_by}: "
        f"{'other data or limits of ' + ', '.join(changed) if changed else 'other settings'}.",
        hint="Scores of the two cannot be compared. Use the same file and data, or give yours "
        "another name.",
    )


def _found(order: Order, place: Place) -> list[_Found]:
    """Return what is measured, what it is compared with before it."""
    found = [_find(one, place) for one in order.subjects]
    if not order.gain or len(found) > 1:
        return found
    base = found[0].base
    if base is None or base.version == PRETRAINED:
        return found
    return [_find(BaseName(base.model, PRETRAINED), place, asked=False), *found]


def _find(one: Subject, place: Place, *, asked: bool = True) -> _Found:
    from coldfusion_shared.evaluate.results import Evaluated

    if isinstance(one, BaseName):
        base = find_base(place.source.api, one.model, one.version)
        return _Found(f"{base.model} {base.version}", asked, base=base)
    if one.suffix == SCORES_SUFFIX and not one.is_dir():
        return _Found(str(one), scores=Evaluated.from_json(one.read_bytes()))
    return _Found(str(one), folder=one)


def _measured(found: _Found, order: Order, loaded: LoadedSuite, place: Place) -> Measured:
    evaluated = found.scores or _measure(found, order, loaded, place)
    return Measured(found.name, found.base, found.asked, evaluated)


def _measure(found: _Found, order: Order, loaded: LoadedSuite, place: Place) -> Evaluated:
    from coldfusion_shared.evaluate.runner import evaluate_base

    folder = base_folder(place.source, found.base) if found.base else found.folder
    assert folder is not None, "what has no scores yet is a base or a folder"
    with _shown(place.reporter, found.name if found.base else _last(found.name)) as progress:
        return evaluate_base(
            folder,
            loaded,
            order.protocol,
            range(order.seeds),
            place.cache.root / KEPT_FOLDER,
            progress,
            place.reporter.say,
        )


def _last(path: str) -> str:
    return Path(path).resolve().name or path


@contextmanager
def _shown(reporter: Reporter, name: str) -> Iterator[Progress]:
    """Yield what the runner calls; the bar begins with the first call, which knows the total."""
    with ExitStack() as stack:
        seen = 0.0
        bar = None

        def progress(done: float, total: int, what: str) -> None:
            nonlocal seen, bar
            if bar is None:
                bar = stack.enter_context(reporter.bar(name, total, "steps"))
            bar.advance(done - seen, what)
            seen = done

        yield progress


def _posted(base: Base, evaluated: Evaluated, place: Place) -> Evaluation:
    from coldfusion_shared.evaluate.software import software

    api = place.source.api
    try:
        # Before the suite is made known for the sake of a base that is gone.
        find_base(api, base.model, base.version)
        api.register(evaluated.suite)
        posted = api.report(base.model, base.version, evaluated.report(software(USER_AGENT)))
    except (ModelNotFound, BaseNotFound):
        raise BaseNotFound(
            f"{base.model} {base.version} vanished while it was measured, so that its scores "
            "cannot be posted.",
            hint="They are kept: if it comes back, the same command posts them at once.",
        ) from None
    place.reporter.say(f"Posted the scores of {base.model} {base.version} to {api.server}.")
    return posted
