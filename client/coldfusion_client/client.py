"""
The Repository in Python: what `coldfusion-client` does, on models in memory, too.

    with Client() as client:
        folder = client.pull("org/base")
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        ...
        client.contribute("org/base", model, base="v3")

Errors are those of `coldfusion_shared.errors`: each has a `message`, mostly a `hint`, and a `code`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

from coldfusion_client.adapters import check_sendable, has_adapter
from coldfusion_client.bases import LATEST, model_name, version_name
from coldfusion_client.cache import Cache, default_cache
from coldfusion_client.evaluating import evaluate
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.evaluation.posting import post as hand_in
from coldfusion_client.forms import FULL, check_form
from coldfusion_client.memory import saved, unwrapped
from coldfusion_client.opening import choose, open_api
from coldfusion_client.permission import check_permission
from coldfusion_client.pull import pull
from coldfusion_client.push import push
from coldfusion_client.reporting import Reporter, Silent
from coldfusion_client.source import Source
from coldfusion_client.standing import ModelStatus, OwnStatus, model_status, own_status
from coldfusion_client.subjects import BaseName, Subject
from coldfusion_client.submission import await_verdict
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution, Withdrawal, Withdrawn, Work
from coldfusion_shared.schemas.models import Model
from coldfusion_shared.schemas.tokens import Whoami

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from coldfusion_shared.evaluate.results import Evaluated


class Client:
    """
    One server, and who we are there. Requests go out by HTTPS alone; waiting is polling.

    Every method may raise `ServerUnreachable`, `ServerError`, and `Unauthenticated`, `TokenExpired`
    or `Forbidden` where the token does not do.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        cache: Path | str | None = None,
        key: Path | str | None = None,
        progress: bool | Reporter = False,
    ) -> None:
        """
        Choose the server; it is not asked anything yet.

        Args:
            server: its URL; null: ``COLDFUSION_SERVER``, else the one that `coldfusion-client
                login` was given last.
            token: null: ``COLDFUSION_TOKEN``, else the one that was given to `login`.
            cache: where downloaded files are kept; null: ``COLDFUSION_CACHE``, else the platform's
                folder for caches.
            key: file of the public key that its bases are signed with, PEM; null:
                ``COLDFUSION_KEY``, else the one that was given or met before.
            progress: true: bars and sentences on standard error, as of the command line; or who is
                told instead.

        Raises:
            ConfigurationError: no server is known, or the URL or the token is no good.
        """
        url, chosen = choose(server, token)
        reporter = _reporter(progress)
        kept = default_cache() if cache is None else Cache(Path(cache))
        named = None if key is None else Path(key)
        self._source = Source(open_api(url, chosen, reporter.warn), kept, reporter, named)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.server!r})"

    def close(self) -> None:
        """Close the connections."""
        self._source.api.connection.close()

    @property
    def server(self) -> str:
        """The server's URL."""
        return self._source.api.server

    def whoami(self) -> Whoami:
        """Return who the token belongs to, its role, and when it expires."""
        return self._source.api.whoami()

    def models(self) -> list[Model]:
        """Return the models that we may read."""
        return list(self._source.api.models())

    def bases(self, model: str) -> list[Base]:
        """Return a model's bases, newest first; raises `ModelNotFound`."""
        return list(self._source.api.bases(model_name(model)))

    def pull(self, model: str, version: str = LATEST, out: Path | str | None = None) -> Path:
        """
        Bring a base, every file verified, and return its folder.

        Args:
            model: owner/name.
            version: such as ``v3``; by default the newest.
            out: where to; null: a folder of the model's name in the current folder. One that was
                pulled before is brought up to date.

        Raises:
            ModelNotFound, BaseNotFound: there is no such base.
            InvalidRequest: `out` holds something that was not pulled from this model.
            Conflict: `out` holds an older base, and somebody changed its files.
            DigestMismatch, StorageFull: it could not be downloaded.
            KeyChanged, BadSignature, HistoryChanged: it is not proven to be the server's own.
        """
        folder = None if out is None else Path(out)
        return pull(self._source, model_name(model), version_name(version), folder).path

    def contribute(
        self,
        model: str,
        finetuned: PreTrainedModel | Path | str,
        base: str | None = None,
        *,
        wait: bool = True,
        onto_latest: bool = False,
        work: Work | None = None,
        encoding: str = FULL,
    ) -> Contribution:
        """
        Contribute what a finetuned model learnt: its body's weights, or a LoRA adapter's.

        The head stays here.

        Doing it again is harmless: the same weights are one contribution.

        Args:
            model: owner/name of the model to contribute to.
            finetuned: a model of transformers or peft, or a folder that `save_pretrained` wrote.
            base: the version that it was finetuned from, such as ``v3``; a folder may say so
                itself, by the coldfusion.json that a pull has put there.
            wait: wait for the verdict; else return the contribution as it arrived.
            onto_latest: put the update onto the newest base where that is another one by now.
            work: what may be said of the work in public, such as task and score; null: nothing.
            encoding: the form of the update: full, delta, delta-int8, delta-sparse or delta-sign;
                auto: the most exact one that is sent within a minute. An adapter travels as it is.

        Raises:
            InvalidRequest: nobody says which base it was finetuned from, or an adapter is to be
                encoded.
            EncodingRefused: the model takes nothing in that form.
            BadModel, IncompatibleWeights: it is not a model that can be contributed.
            BaseOutdated: there is a newer base, and `onto_latest` is false.
            AlreadyContributed: the weights were contributed before.
            ContributionRejected: it was screened and rejected; the message says why.
        """
        name = model_name(model)
        version = None if base is None else version_name(base)
        with self._folder(finetuned, version) as folder:
            return push(
                self._source, name, folder, version, onto_latest=onto_latest, wait=wait, work=work,
                encoding=encoding,
            )  # fmt: skip

    def evaluate(
        self,
        model: str | Path,
        suite: Path | str,
        version: str = LATEST,
        *,
        protocol: str = "frozen",
        seeds: int = 3,
        post: bool = False,
    ) -> Evaluated:
        """
        Measure a base on the data sets of a suite; needs the extra ``train``.

        What was measured before, with the same data and settings, is not measured again; two that
        were measured alike are compared by `coldfusion_shared.evaluate.comparison.compare`.

        Args:
            model: owner/name; or, as a path, the folder of a model on this machine.
            suite: the suite's file, in YAML.
            version: which base, such as ``v3``; by default the newest.
            protocol: frozen, finetuned or few-shot.
            seeds: how often each data set is measured, every time with training examples drawn
                anew; with one seed there are no standard errors.
            post: hand the scores in; for evaluators.

        Raises:
            BadSuite: the suite, or data that it names, cannot be used.
            SuiteChanged: the data are not those that the suite is pinned to, or the server knows
                another suite of that name.
            ModelNotFound, BaseNotFound: there is no such base, or, when its scores are posted, no
                longer.
            BadModel: it cannot be measured by this protocol.
            EvaluationFailed, TrainingFailed: it could not be measured.
            Forbidden: the scores are to be posted, and the token is no evaluator's.
        """
        subject: Subject = (
            model if isinstance(model, Path) else BaseName(model_name(model), version_name(version))
        )
        order = Order((subject,), Path(suite), protocol, seeds, post=post)
        source = self._source
        place = Place(source.cache, source.reporter, source.api, source.key)
        outcome = evaluate(order, place)
        if post:
            hand_in(outcome, place)
        return outcome.newest.evaluated

    def check(
        self, model: str, finetuned: PreTrainedModel | None = None, *, encoding: str = FULL
    ) -> None:
        """
        Find out before a training what would forbid to contribute its model. Nothing is sent.

        Args:
            model: owner/name of the model to contribute to.
            finetuned: what will be trained; null: a model without an adapter.
            encoding: as `contribute` will be told.

        Raises:
            Forbidden: the token may not contribute.
            ModelNotFound: there is no such model.
            BadModel: the adapter is none that can be contributed.
            UnknownName, InvalidRequest, EncodingRefused: nothing can be sent in that form.
        """
        check_permission(self._source.api.whoami(), model_name(model))
        trained = unwrapped(finetuned)
        if has_adapter(trained):
            check_sendable(trained)
        policy = self._source.api.model(model_name(model)).policy
        check_form(encoding, policy, adapter=has_adapter(trained))

    def contribution(self, identity: str, *, wait: bool = False) -> Contribution:
        """
        Return one contribution, as it stands or, with `wait`, once it is screened.

        Raises:
            ContributionNotFound: there is none of that id.
            ContributionRejected: it was waited for and rejected.
        """
        found = self._source.api.contribution(identity)
        return await_verdict(self._source.api, found) if wait else found

    def withdraw(
        self, identity: str, *, erase: bool = False, reason: str | None = None
    ) -> Withdrawn:
        """
        Take a contribution back; what this cannot undo, the answer's `sentence` says.

        Args:
            identity: the contribution's id.
            erase: have its stored files deleted at once, for good.
            reason: why, if it may be known.

        Raises:
            ContributionNotFound: there is none of that id.
            Forbidden: it is somebody else's.
            StateConflict: it was rejected, or its upload expired.
        """
        return self._source.api.withdraw(identity, Withdrawal(reason=reason, erase=erase))

    @overload
    def status(self) -> OwnStatus: ...

    @overload
    def status(self, model: str) -> ModelStatus: ...

    def status(self, model: str | None = None) -> OwnStatus | ModelStatus:
        """Return how `model` and its round stand; without it, what is ours in all that go on."""
        if model is None:
            return own_status(self._source.api)
        return model_status(self._source.api, model)

    @contextmanager
    def _folder(self, finetuned: PreTrainedModel | Path | str, base: str | None) -> Iterator[Path]:
        if isinstance(finetuned, Path | str):
            yield Path(finetuned)
            return
        if base is None:
            # Not guessed from where it was loaded: that folder may hold a newer base by now.
            raise InvalidRequest(
                "A model in memory does not say which base it was finetuned from.",
                hint="Add it, such as: base='v3'",
            )
        with saved(finetuned, self._source.cache) as folder:
            yield folder


def _reporter(progress: bool | Reporter) -> Reporter:
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return Silent()
    from coldfusion_client.cli.output import Output

    return Output()
