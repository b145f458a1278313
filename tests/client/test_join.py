"""Joining by an invitation: the token is kept, and nothing is lost on the way."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from coldfusion_client.api import Api
from coldfusion_client.cli.app import app
from coldfusion_client.config import credentials_file, load_credentials
from coldfusion_client.joining import join
from coldfusion_client.permission import check_evaluator, check_permission
from coldfusion_shared import errors
from coldfusion_shared.schemas.tokens import Role, Whoami
from tests.client.helpers import SERVER
from tests.client.repository import MODEL, Repository, problem

CODE = f"cfi_{'0' * 16}_{'A' * 22}"
JOINED = {"token": "cf_new_secret", "name": "ann", "role": "contributor", "models": [MODEL],
          "expires_at": None}  # fmt: skip


def kept() -> dict[str, str]:
    return load_credentials(credentials_file()).tokens


def inviting(repository: Repository, *answers: httpx.Response | Exception) -> list[httpx.Request]:
    """Let the repository answer to codes, with `answers` first; return what it is sent."""
    sent: list[httpx.Request] = []
    left = list(answers)

    def fault(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/v1/join":
            return None
        sent.append(request)
        answer = left.pop(0) if left else httpx.Response(200, json=JOINED)
        if isinstance(answer, Exception):
            raise answer
        return answer

    repository.faults.append(fault)
    return sent


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(words, prog_name="coldfusion-client")
    return int(ended.value.code or 0)


def test_the_token_is_kept_and_neither_it_nor_the_code_is_shown(
    url: str, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = inviting(repository)
    assert run("join", url, CODE, "--name", "ann") == 0
    shown = capsys.readouterr()
    assert shown.out == f"Joined {url} as ann (contributor of {MODEL}).\n"
    assert run("join", url, CODE, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["name"] == "ann"
    assert "secret" not in shown.out + shown.err and CODE not in shown.out + shown.err
    assert kept() == {url: "cf_new_secret"}
    assert json.loads(sent[0].content) == {"code": CODE, "name": "ann"}
    assert "Authorization" not in sent[0].headers


def test_a_code_may_come_from_standard_input(
    url: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = inviting(repository)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{CODE}\n"))
    assert run("join", url, "--quiet") == 0
    assert json.loads(sent[0].content)["code"] == CODE


def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    connect: Callable[..., Api], repository: Repository
) -> None:
    sent = inviting(repository, httpx.ReadTimeout("lost"), httpx.Response(502))
    assert join(connect(None), CODE, "ann").token == "cf_new_secret"
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    join(connect(None), CODE, "ann")
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 2
    assert kept() == {SERVER: "cf_new_secret"}


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        ("cf_a_token", "ann", errors.InvalidRequest),
        ("", "ann", errors.InvalidRequest),
        (CODE, "a b", errors.InvalidRequest),
        (CODE + "x" * 200, "ann", errors.InvalidRequest),
    ],
)
def test_what_cannot_be_is_not_sent(
    code: str, name: str, kind: Any, connect: Callable[..., Api], repository: Repository
) -> None:
    sent = inviting(repository)
    with pytest.raises(kind) as caught:
        join(connect(None), code, name)
    assert not sent and kept() == {}
    assert code[:60] not in caught.value.message or not code


def test_where_no_token_could_be_kept_the_invitation_is_not_used(
    connect: Callable[..., Api], repository: Repository
) -> None:
    sent = inviting(repository)
    credentials_file().parent.mkdir(parents=True)
    credentials_file().write_text("damaged")
    with pytest.raises(errors.ConfigurationError):
        join(connect(None), CODE, "ann")
    assert not sent


def test_a_refused_code_ends_with_4_and_what_to_do(
    url: str, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    inviting(repository, problem(403, "invitation_refused", "Used before.", hint="Ask for one."))
    assert run("join", url, CODE) == 4
    shown = capsys.readouterr()
    assert "Used before." in shown.err and "Ask for one." in shown.err
    assert kept() == {}


def test_a_code_given_as_a_token_is_told_from_one(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("login", url, "--token", CODE) == 2
    shown = capsys.readouterr()
    assert "coldfusion-client join" in shown.err and CODE not in shown.err


def test_a_token_for_other_models_is_told_before_the_work() -> None:
    me = Whoami(name="ann", role=Role.MAINTAINER, expires_at=None, models=["demo/other"])
    check_permission(me, "demo/other")
    check_evaluator(me, ["demo/other"])
    with pytest.raises(errors.Forbidden, match="demo/other"):
        check_permission(me, MODEL)
    with pytest.raises(errors.Forbidden, match="demo/other"):
        check_evaluator(me, [MODEL])
    everything = me.model_copy(update={"models": None})
    check_permission(everything, MODEL)
