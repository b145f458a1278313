"""
The contributor's loop.

    pull the newest base, finetune it on data that stay at home, send back the body's weights;
    the Repository fuses them with the others' into the next base.

Every step leaves its result on disk before the next one begins, so that a run that was killed at
any point goes on from there, and the Repository knows a contribution again that comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_client.bases import LATEST, base_file, base_folder, find_base
from coldfusion_client.bodies import frozen_in
from coldfusion_client.connection import USER_AGENT
from coldfusion_client.delivery import Goods, deliver
from coldfusion_client.disk import writing
from coldfusion_client.folder_names import require_utf8
from coldfusion_client.following import call_in, dismiss
from coldfusion_client.forms import AUTO, LORA, Form, choose_encodings
from coldfusion_client.journal import Journal
from coldfusion_client.naming import task_names
from coldfusion_client.newer import NewerBase
from coldfusion_client.packing import Score
from coldfusion_client.permission import check_permission
from coldfusion_client.record import Record, write_record
from coldfusion_client.reporting import Reporter, steps_shown
from coldfusion_client.runs import Run, choose_run, known_task, older_training, working_on
from coldfusion_client.sizes import body_bytes
from coldfusion_client.source import Source
from coldfusion_client.speeds import upload_speed
from coldfusion_client.submission import await_verdict, told
from coldfusion_client.training import ADAPTER_FOLDER, Data, StepProgress, Trainer
from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.privacy import in_words
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution, Work
from coldfusion_shared.schemas.models import Policy

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.report import Finding
    from coldfusion_shared.finetune.settings import FinetuneSettings


# Of what is said of a setting.
MOST_LETTERS = 500


@dataclass(frozen=True)
class Order:
    """
    What a contributor asks for.

    Attributes:
        model: the model to improve.
        data: what to learn from.
        settings: how to finetune.
        output: the run's folder; null: one of its own below the current folder.
        public_name: what the data set may be called in public; null: it stays unnamed.
        onto_latest: contribute to the newest base, whichever the training began with.
        wait: wait for the verdict.
        encoding: the form of the update; `AUTO`: as small as the connection asks for, and with
            LoRA the adapter.
    """

    model: str
    data: Data
    settings: FinetuneSettings
    output: Path | None = None
    public_name: str | None = None
    onto_latest: bool = False
    wait: bool = True
    encoding: str = AUTO

    @property
    def wanted(self) -> str:
        """The encoding that is asked for, where one is."""
        return LORA if self.encoding == AUTO and self.settings.lora else self.encoding


class Stopwatch:
    """How long each kind of work took, in seconds."""

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Measure what happens inside."""
        begun = time.monotonic()
        yield
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - begun


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    run: Run
    contribution: Contribution
    summary: str
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        contribution, journal = self.contribution, self.run.journal
        return {
            "contribution": contribution.id,
            "model": contribution.model,
            "base": contribution.base,
            "round": contribution.round,
            "state": contribution.state.value,
            "reason": contribution.reason,
            "result": contribution.result,
            "output": str(self.run.folder),
            "trained_from": journal.base,
            "metric": journal.trained.metric if journal.trained else None,
            "score_before": journal.score_before,
            "score_after": journal.trained.score if journal.trained else None,
            "metrics": journal.trained.metrics if journal.trained else None,
            "privacy": _privacy(journal),
            "seconds": {kind: round(value, 2) for kind, value in self.seconds.items()},
        }


def contribute(order: Order, source: Source, trainer: Trainer) -> Outcome:
    """
    Finetune a model's newest base and contribute what it learnt.

    Raises:
        Unauthenticated, TokenExpired, Forbidden: the token does not do.
        ModelNotFound: there is no such model.
        BadData: the data cannot be read or learnt from.
        TrainingFailed: finetuning could not be finished.
        BaseOutdated: a newer base was published meanwhile; the training is kept.
        ContributionRejected: the weights were screened and rejected.
    """
    clock = Stopwatch()
    require_utf8(order.output or Path(), source.cache.root)
    check_permission(source.api.whoami(), order.model)
    policy = source.api.model(order.model).policy
    check_encoding(order, policy)
    newest = find_base(source, order.model, LATEST)
    # What the base is decides between kinds of tasks where the data alone do not.
    config = base_file(source, newest, "config.json")
    dataset = trainer.read(order.data, order.settings.seed, config)
    for note in dataset.notes:
        source.reporter.say(note)

    with working_on(_choose(order, source, newest, dataset)) as run:
        base = find_base(source, order.model, run.journal.base)
        if run.journal.trained is None:
            _finetune(order, source, trainer, dataset, base, run, clock)
        else:
            dismiss()
        run.take_model()
        _tell_scores(source.reporter, run)

        with clock.measure("upload"):
            goods = Goods(
                run, base, _work(order, run), _form(order, source, run, base, policy),
                _scorer(order, trainer, dataset),
            )  # fmt: skip
            contribution = deliver(source, goods, onto_latest=order.onto_latest)
        if order.wait:
            with clock.measure("screening"):
                contribution = await_verdict(source.api, contribution, run.note)
        return Outcome(run, contribution, told(source.api, contribution), clock.seconds)


def _choose(order: Order, source: Source, newest: Base, dataset: TextDataset) -> Run:
    server = source.api.server
    names = task_names(server, order.model, dataset.digest, order.settings)
    wanted = Journal(
        server=server,
        model=order.model,
        base=newest.version,
        dataset=dataset.name,
        task=known_task(names, order.model, order.output),
    )
    run = choose_run(wanted, order.output, onto_latest=order.onto_latest)
    older = older_training(wanted) if run.journal is wanted else None
    if older is not None:
        source.reporter.warn(
            f"A finished training on {older.journal.base} lies in {older.folder}. Add --onto "
            f"latest to contribute that one instead of training again on {newest.version}."
        )
    return run


def _finetune(
    order: Order,
    source: Source,
    trainer: Trainer,
    dataset: TextDataset,
    base: Base,
    run: Run,
    clock: Stopwatch,
) -> None:
    reporter = source.reporter
    with clock.measure("download"):
        folder = base_folder(source, base)
    staging = run.begin_training()
    run.save()
    with NewerBase(source.api, order.model, base.version, reporter), writing(run.folder):
        with clock.measure("check"):
            _tell_findings(reporter, trainer.check(folder, dataset, order.settings))
        # A probe learns from the examples, and nothing would hide what its score tells of them.
        probed = trainer.can_score(dataset) and not order.settings.dp
        if run.journal.score_before is None and probed:
            reporter.say(f"Scoring {order.model} {base.version} on held-back examples ...")
            with clock.measure("scoring"):
                run.journal.score_before = _score_before(order, trainer, reporter, folder, dataset)
            run.save()
        reporter.say(
            f"Finetuning on {len(dataset.train)} examples of {dataset.name} ({dataset.task}) ..."
        )
        with clock.measure("training"), _training_shown(reporter) as progress:
            call_in(base.version, staging)
            trained = trainer.finetune(
                folder, dataset, order.settings, staging, progress, reporter.say
            )
    write_record(
        staging,
        Record(
            server=source.api.server, digest=base.digest, manifest=base.manifest, finetuned=True
        ),
    )
    run.journal.trained = trained
    run.save()


def _score_before(
    order: Order, trainer: Trainer, reporter: Reporter, base: Path, dataset: TextDataset
) -> float | None:
    """Return the base's score; null where it cannot be had, which keeps nobody from training."""
    try:
        return trainer.score(base, dataset, order.settings)
    except TrainingFailed as error:
        reporter.warn(f"The base could not be scored: {error.message}")
        return None


def _tell_findings(reporter: Reporter, findings: Iterable[Finding]) -> None:
    for finding in findings:
        tell = reporter.warn if finding.serious else reporter.say
        tell(finding.text)


@contextmanager
def _training_shown(reporter: Reporter) -> Iterator[StepProgress]:
    """Yield what a trainer calls."""
    with steps_shown(reporter, "finetune") as shown:

        def progress(done: int, total: int, loss: float) -> None:
            shown(done, total, f"loss {loss:.3f}" if isfinite(loss) else "")

        yield progress


def _tell_scores(reporter: Reporter, run: Run) -> None:
    trained, before = run.journal.trained, run.journal.score_before
    if trained is None:
        return
    probed = (
        "" if before is None else f"{before:.1f} before (a linear probe of {run.journal.base}), "
    )
    others = [f"{name} {value:.1f}" for name, value in trained.metrics.items()]
    beside = ", ".join(told for told in others if not told.startswith(f"{trained.metric} "))
    reporter.say(
        f"{trained.metric} on the held-back examples: {probed}{trained.score:.1f} finetuned"
        f"{f' ({beside})' if beside else ''}. Your model: {run.folder}"
    )

    if trained.privacy:
        spent = trained.privacy
        reporter.say(
            f"What the weights tell of any one training example is bounded by epsilon "
            f"{in_words(spent.epsilon)} at delta {spent.delta:.1e}. The head and the scores, which "
            "are not sent, are for you. Another training on the same data adds what it spends; "
            "sending these weights again adds nothing."
        )


def _privacy(journal: Journal) -> dict[str, Any] | None:
    trained = journal.trained
    return trained.privacy.model_dump() if trained and trained.privacy else None


def _scorer(order: Order, trainer: Trainer, dataset: TextDataset) -> Score | None:
    # Of several processes that trained together, only this one is left. With DP-SGD no score of
    # the data goes out.
    if processes.count() > 1 or order.settings.dp:
        return None
    return partial(trainer.rescore, dataset=dataset, settings=order.settings)


def check_encoding(order: Order, policy: Policy) -> None:
    """
    Refuse what could not be sent, before anything is trained.

    Raises:
        UnknownName, EncodingRefused: there is no such encoding, or the model does not take it.
        InvalidRequest: an adapter is to be sent, and none learnt.
    """
    if order.wanted == LORA and not order.settings.lora:
        raise InvalidRequest("There is no adapter to send.", hint="Add --lora to learn one.")
    choose_encodings(order.wanted, policy, 0, None)


def _form(order: Order, source: Source, run: Run, base: Base, policy: Policy) -> Form:
    folder = base_folder(source, base)
    frozen = frozen_in(folder, order.settings.freeze)
    size = body_bytes(folder, frozen)
    speed = upload_speed(source.cache.root, source.api.server)
    chosen = choose_encodings(order.wanted, policy, size, speed)
    adapter = run.folder / ADAPTER_FOLDER if chosen == [LORA] else None
    if adapter is not None:
        # Where an adapter would mean something else on a newer base, its weights are sent.
        weights = policy.encodings is None or set(policy.encodings) - {LORA}
        chosen = choose_encodings(AUTO, policy, size, speed) if weights else []
    return Form(chosen, frozen, adapter, order.encoding, policy.screening)


def _work(order: Order, run: Run) -> Work:
    trained = run.journal.trained
    spent = trained.privacy if trained else None
    settings = order.settings.as_used() | (spent.as_settings() if spent else {})
    return Work(
        task=trained.task if trained else None,
        # A private file's own name may tell more than its owner wants.
        dataset=order.public_name,
        examples=trained.examples if trained else None,
        metric=trained.metric if trained else None,
        score_before=run.journal.score_before,
        # It is of held-back examples, which no noise protects.
        score_after=trained.score if trained and not spent else None,
        settings={
            name: ", ".join(value)[:MOST_LETTERS] if isinstance(value, list) else value
            for name, value in settings.items()
        },
        client=USER_AGENT,
    )
