"""The Repository's HTTP API, typed: one method per route, schemas in and out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from coldfusion_client.connection import Connection, timeout
from coldfusion_shared.errors import ServerError
from coldfusion_shared.schemas.bases import Base, Difference
from coldfusion_shared.schemas.common import Page, ServerInfo
from coldfusion_shared.schemas.contributions import (
    Contribution,
    Declaration,
    Declared,
    UploadPlan,
    Withdrawal,
    Withdrawn,
)
from coldfusion_shared.schemas.evaluations import (
    Evaluation,
    EvaluationReport,
    RegisteredSuite,
    Suite,
)
from coldfusion_shared.schemas.events import Event
from coldfusion_shared.schemas.invitations import Join, Joined
from coldfusion_shared.schemas.models import HeadMove, Model
from coldfusion_shared.schemas.rounds import Candidate, Round
from coldfusion_shared.schemas.sign_in import SignedIn, SignIn, SignInOffer
from coldfusion_shared.schemas.tokens import Whoami
from coldfusion_shared.schemas.usage import OwnUsage

T = TypeVar("T")
Params = dict[str, str | int]

# To complete an upload the server reads all of it before it says a word.
COMPLETE_SECONDS = 600.0
# Twice the server's keep-alive, and a little.
EVENT_SECONDS = 40.0


class Api:
    """
    The routes of one server. Safe to use from several threads.

    Requests are tried again on failures that pass by; all of them can be repeated without harm.
    Any method raises the errors of our tree that the server answers with, `ServerError` for
    answers that are none of ours, and `ServerUnreachable` when there is none at all.
    """

    def __init__(self, connection: Connection) -> None:
        """Use `connection`, and close it in the end."""
        self.connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

    @property
    def server(self) -> str:
        """The server's URL."""
        return self.connection.server

    def once(self) -> Api:
        """Return the same routes for a caller who prefers an error now to an answer later."""
        return Api(self.connection.once())

    def info(self) -> ServerInfo:
        """Return what the server says of itself."""
        return self._get(ServerInfo, "/v1")

    def whoami(self) -> Whoami:
        """Return who the token belongs to."""
        return self._get(Whoami, "/v1/whoami")

    def join(self, wanted: Join, key: str) -> Joined:
        """Use an invitation; the same `key` gives the same token again."""
        headers = {"Idempotency-Key": key}
        return self._post(Joined, "/v1/join", wanted, headers=headers)

    def sign_in_offer(self) -> SignInOffer:
        """Return how people sign in by the server's provider; raises `NotFound`."""
        return self._get(SignInOffer, "/v1/sign-in")

    def sign_in(self, wanted: SignIn, key: str) -> SignedIn:
        """Use what the provider says of somebody; the same `key` gives the same token again."""
        headers = {"Idempotency-Key": key}
        return self._post(SignedIn, "/v1/sign-in", wanted, headers=headers)

    def own_usage(self) -> OwnUsage:
        """Return what we have stored and on the way, and the quota."""
        return self._get(OwnUsage, "/v1/usage/me")

    def models(self) -> Iterator[Model]:
        """Yield every model that we may read."""
        return self._pages(Model, "/v1/models")

    def model(self, model: str) -> Model:
        """Return one model."""
        return self._get(Model, f"/v1/models/{model}")

    def bases(self, model: str) -> Iterator[Base]:
        """Yield a model's bases, newest first."""
        return self._pages(Base, f"/v1/models/{model}/bases")

    def base(self, model: str, version: str) -> Base:
        """Return the base of a version such as ``v3``, or ``latest``."""
        return self._get(Base, f"/v1/models/{model}/bases/{version}")

    def heads(self, model: str) -> Iterator[HeadMove]:
        """Yield the moves of a model's head, newest first."""
        return self._pages(HeadMove, f"/v1/models/{model}/heads")

    def signing_key(self) -> bytes:
        """Return the public key that bases are signed with, as PEM."""
        return self.connection.call("GET", "/v1/signing-key").content

    def signature(self, model: str, version: str) -> str:
        """Return the signature of a base."""
        return self.connection.call("GET", f"/v1/models/{model}/bases/{version}/signature").text

    def head(self, model: str, nonce: str) -> str:
        """Return the newest base's name and digest, signed together with `nonce`."""
        path = f"/v1/models/{model}/head"
        return self.connection.call("GET", path, params={"nonce": nonce}).text

    def evaluations(self, model: str, version: str) -> list[Evaluation]:
        """Return what evaluators measured of a base."""
        path = f"/v1/models/{model}/bases/{version}/evaluations"
        return _parsed(list[Evaluation], self.connection.call("GET", path))

    def report(self, model: str, version: str, report: EvaluationReport) -> Evaluation:
        """Hand in what was measured of a base."""
        return self._post(Evaluation, f"/v1/models/{model}/bases/{version}/evaluations", report)

    def suites(self) -> Iterator[RegisteredSuite]:
        """Yield the suites that the Repository knows, newest first."""
        return self._pages(RegisteredSuite, "/v1/suites")

    def suite(self, name: str) -> RegisteredSuite:
        """Return the suite of that name."""
        return self._get(RegisteredSuite, _suite(name))

    def register(self, suite: Suite) -> RegisteredSuite:
        """Make a suite known by its name; raises `SuiteChanged` where that names another one."""
        body = suite.model_dump(mode="json")
        return _parsed(RegisteredSuite, self.connection.call("PUT", _suite(suite.name), json=body))

    def rounds(self, model: str) -> Iterator[Round]:
        """Yield a model's rounds, newest first."""
        return self._pages(Round, f"/v1/models/{model}/rounds")

    def round(self, model: str, number: int | str) -> Round:
        """Return a round by its number, or the ``open`` one."""
        return self._get(Round, f"/v1/models/{model}/rounds/{number}")

    def candidates(self, model: str) -> list[Candidate]:
        """Return the candidates that wait to be measured; for evaluators."""
        path = f"/v1/models/{model}/candidates"
        return _parsed(list[Candidate], self.connection.call("GET", path))

    def candidate(self, model: str, identity: str) -> Candidate:
        """Return one candidate; for evaluators."""
        return self._get(Candidate, _candidate(model, identity))

    def report_candidate(self, model: str, identity: str, report: EvaluationReport) -> Evaluation:
        """Hand in what was measured of a candidate."""
        return self._post(Evaluation, f"{_candidate(model, identity)}/evaluations", report)

    def contributions(self, model: str, **filters: str | int) -> Iterator[Contribution]:
        """Yield a model's contributions, newest first, by ``round``, ``state``, ``contributor``."""
        return self._pages(Contribution, f"/v1/models/{model}/contributions", filters)

    def contribution(self, identity: str) -> Contribution:
        """Return one contribution, as it stands."""
        return self._get(Contribution, _contribution(identity))

    def declare(self, model: str, declaration: Declaration, key: str) -> Declared:
        """Announce a contribution; the same `key` gives the same contribution again."""
        path = f"/v1/models/{model}/contributions"
        return self._post(Declared, path, declaration, headers={"Idempotency-Key": key})

    def upload_plan(self, identity: str) -> UploadPlan:
        """Return which parts of an upload have arrived, and fresh URLs for the others."""
        return self._get(UploadPlan, f"{_contribution(identity)}/upload")

    def put_part(self, url: str, content: Iterable[bytes], size: int, md5: bytes) -> None:
        """
        Send one part of an upload to its URL, once.

        Args:
            url: where to, from the upload plan.
            content: the part; it is iterated again where the store sends us elsewhere.
            size: its length in bytes.
            md5: its MD5, by which the store can tell whether it arrived as it was sent.

        Raises:
            Transient: it did not arrive.
            UploadRefused: the URL is wrong or expired.
        """
        headers = {"Content-Length": str(size), "Content-MD5": b64encode(md5).decode()}
        self.connection.put(url, content=content, headers=headers)

    def complete(self, identity: str) -> Contribution:
        """Say that all parts were sent; the server verifies them."""
        path = f"{_contribution(identity)}/complete"
        return self._post(Contribution, path, timeout=timeout(COMPLETE_SECONDS))

    def withdraw(self, identity: str, withdrawal: Withdrawal) -> Withdrawn:
        """Take a contribution back."""
        return self._post(Withdrawn, f"{_contribution(identity)}/withdraw", withdrawal)

    def open_file(
        self, model: str, version: str, path: str, start: int = 0, end: int | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """
        Open a base's file from byte `start` up to `end` without it, once; by default all of it.

        Raises:
            Transient: it could not be opened.
        """
        return self._open(f"/v1/models/{model}/bases/{version}/files/{quote(path)}", start, end)

    def open_candidate_file(
        self, model: str, identity: str, path: str, start: int = 0, end: int | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """Open a candidate's file as `open_file` opens a base's."""
        return self._open(f"{_candidate(model, identity)}/files/{quote(path)}", start, end)

    def differences(self, model: str, version: str) -> list[Difference]:
        """Return the differences by which a base's files can be had from its parent's."""
        path = f"/v1/models/{model}/bases/{version}/differences"
        return _parsed(list[Difference], self.connection.call("GET", path))

    def open_difference(
        self, model: str, version: str, sha256: str, start: int = 0, end: int | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """Open a difference as `open_file` opens a file."""
        path = f"/v1/models/{model}/bases/{version}/differences/{sha256}"
        return self._open(path, start, end)

    def _open(
        self, path: str, start: int, end: int | None
    ) -> AbstractContextManager[httpx.Response]:
        headers = {"Accept-Encoding": "identity"}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
        return self.connection.stream(path, headers=headers)

    def events(self, model: str | None = None, after: int = 0, limit: int = 100) -> list[Event]:
        """Return what happened after the event `after`, oldest first."""
        params: Params = {"after": after, "limit": limit}
        if model is not None:
            params["model"] = model
        return _parsed(list[Event], self.connection.call("GET", "/v1/events", params=params))

    def event_stream(self, model: str, after: int | None) -> AbstractContextManager[httpx.Response]:
        """
        Open the live stream of a model's events, once, after the event `after` if one was seen.

        Raises:
            Transient: it could not be opened.
        """
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        return self.connection.stream(
            "/v1/events/stream",
            headers=headers,
            params={"model": model},
            timeout=timeout(EVENT_SECONDS),
        )

    def _get(self, schema: type[T], path: str, params: Params | None = None) -> T:
        return _parsed(schema, self.connection.call("GET", path, params=params))

    def _post(self, schema: type[T], path: str, body: BaseModel | None = None, **options: Any) -> T:
        if body is not None:
            options["json"] = body.model_dump(mode="json")
        return _parsed(schema, self.connection.call("POST", path, **options))

    def _pages(self, schema: type[T], path: str, filters: Params | None = None) -> Iterator[T]:
        params = dict(filters or {})
        while True:
            page = self._get(Page[schema], path, params)  # type: ignore[valid-type]
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor


def _contribution(identity: str) -> str:
    return f"/v1/contributions/{quote(identity, safe='')}"


def _candidate(model: str, identity: str) -> str:
    return f"/v1/models/{model}/candidates/{quote(identity, safe='')}"


def _suite(name: str) -> str:
    return f"/v1/suites/{quote(name, safe='')}"


def _parsed(schema: type[T], response: httpx.Response) -> T:
    try:
        parsed: T = TypeAdapter(schema).validate_json(response.content)
    except ValidationError:
        raise ServerError(
            f"The answer of {response.url} is none that this client understands.",
            hint="Check that it is a coldfusion server; if it is a newer one: "
            "pip install -U 'coldfusion[client]'",
        ) from None
    return parsed
