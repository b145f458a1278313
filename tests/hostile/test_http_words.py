"""Others' words stay words: in pages, cards, logs, and in the terminals of client and server."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from coldfusion_client.cli.app import app as client
from coldfusion_server.cli import app as server
from coldfusion_server.cli.output import fail, show, table
from coldfusion_server.log import configure_logging, escaped
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.contributions import Work
from tests.hostile.serving import Web, served
from tests.server.repository import MODEL, Repository, body_file, declaration, repository

# A colour, a title, a jump, another line, a C1 sequence, an override of direction, HTML, Markdown.
EVIL = (
    "a\x1b[31m\x1b]0;owned\x07\x08\r\n2026-01-01 [info] forged\x9b2J\u202egnp.exe\u2066"
    "<img src=x onerror=alert(1)>'\"`|[x](javascript:alert(1))\u2028end"
)
# Nothing of these may come out anywhere where a terminal reads.
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def texts(kind: Any) -> dict[str, Any]:
    """Return hostile words for every text that a contributor says of the work."""
    words = {
        name: EVIL
        for name, field in kind.model_fields.items()
        if "str" in str(field.annotation) and name not in ("languages", "settings")
    }
    return {**words, "languages": [EVIL], "settings": {EVIL[:100]: EVIL}}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with repository(tmp_path_factory.mktemp("words")) as opened:
        opened.model()
        yield opened


@pytest.fixture(scope="module")
def contribution(repo: Repository) -> str:
    """A contribution that says hostile things wherever anything can be said, and was taken out."""
    ann = repo.contributor("ann")
    raw = body_file(1)
    body = {**declaration(raw), "work": texts(Work), "frozen": [EVIL]}
    answer = ann.client.post(
        f"/v1/models/{MODEL}/contributions", json=body, headers={"Idempotency-Key": "a key of ann"}
    )
    assert answer.status_code == 201, answer.text
    found = str(answer.json()["contribution"]["id"])
    report = {"suite": EVIL[:60], "protocol": "frozen", "scores": {EVIL[:60]: 5.0}}
    report |= {"software": EVIL[:60], "metric": EVIL[:60]}
    eva = repo.client(repo.token("eva", "evaluator"))
    posted = eva.post(f"/v1/models/{MODEL}/bases/v0/evaluations", json=report)
    assert posted.status_code in (201, 422), posted.text
    taken = ann.client.post(f"/v1/contributions/{found}/withdraw", json={"reason": EVIL})
    assert taken.status_code == 200, taken.text
    return found


def test_pages_show_the_words(repo: Repository, contribution: str) -> None:
    for path in ("/", f"/models/{MODEL}", f"/models/{MODEL}/rounds/1",
                 f"/models/{MODEL}/bases/v0", f"/contributions/{contribution}"):  # fmt: skip
        page = repo.client().get(path)
        assert page.status_code == 200
        assert "<img" not in page.text and 'javascript:alert(1)"' not in page.text
    assert "&lt;img src=x" in page.text


def test_the_card_shows_them(repo: Repository, contribution: str) -> None:
    card = repo.client().get(f"/v1/models/{MODEL}/bases/v0/card").text
    assert "<img" not in card and "](javascript" not in card
    picture = repo.client().get(f"/v1/models/{MODEL}/bases/v0/card/gain.svg").text
    assert "<img" not in picture


@pytest.fixture
def web(repo: Repository) -> Iterator[Web]:
    with served(repo.app, repo.settings) as running:
        yield running


def test_the_contributors_terminal_shows_them(
    repo: Repository, contribution: str, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = web.address
    monkeypatch.setenv("COLDFUSION_SERVER", f"http://{host}:{port}")
    monkeypatch.setenv("COLDFUSION_TOKEN", repo.token("ann"))
    monkeypatch.setenv("NO_PROXY", host)
    monkeypatch.setenv("COLDFUSION_CONFIG", str(repo.folder / "config"))
    for words in (["status", contribution], ["status", MODEL], ["status"], ["models"]):
        for more in ([], ["--json"], ["--quiet"]):
            done = CliRunner().invoke(client, [*words, *more])
            assert done.exit_code == 0, done.output
            assert not COMMANDS.search(done.output), done.output


def test_the_operators_terminal_shows_them(repo: Repository, contribution: str) -> None:
    folder = ["--data-dir", str(repo.folder)]
    for words in (["round", "list", MODEL], ["model", "show", MODEL], ["usage"], ["token", "list"]):
        for more in ([], ["--json"]):
            done = CliRunner().invoke(server, [*words, *folder, *more])
            assert not COMMANDS.search(done.output), done.output


def test_tables_and_errors_of_the_operator_are_harmless(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show([EVIL], False, table(("NAME",), [[EVIL], ["b"]]))
    show([EVIL], True, "")
    for words in (["coldfusion-server"], ["coldfusion-server", "--json"]):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            fail(InvalidRequest(EVIL, hint=EVIL))
    said = capsys.readouterr()
    assert not COMMANDS.search(said.out + said.err)
    # Two rows under a head: a name has begun no row of its own.
    assert said.out.splitlines()[0] == "NAME" and said.out.splitlines()[2] == "b"


@pytest.fixture
def logs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, in lines for people or for programs."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    configure_logging(Settings(log_json=request.param))
    yield stream
    root.handlers = before
    structlog.reset_defaults()


def hear(stream: io.StringIO) -> None:
    """Log hostile words in every way that there is."""
    log = structlog.get_logger("test")
    log.info("request", path=EVIL, names=[EVIL], plain=EVIL.replace(" ", ""))
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        log.exception("fault", error=repr(error))
        logging.getLogger("uvicorn.error").exception("failed %s", EVIL)


@pytest.mark.parametrize("logs", [False], indirect=True)
def test_a_log_for_people_has_only_our_own_lines(logs: io.StringIO) -> None:
    hear(logs)
    said = logs.getvalue()
    assert not COMMANDS.search(said), said
    assert "forged" in said and "\n2026-01-01 [info] forged" not in said
    # A line is the log's own, or stands under one.
    ours = re.compile(r"\d{4}-\d\d-\d\dT|ERROR |WARNING | {2}|$")
    assert all(ours.match(line) for line in said.split("\n")), said


@pytest.mark.parametrize("logs", [True], indirect=True)
def test_a_log_for_programs_is_one_document_a_line(logs: io.StringIO) -> None:
    hear(logs)
    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["request", "fault", f"failed {EVIL}"]
    assert lines[0]["path"] == EVIL and "ValueError" in lines[2]["exception"]
    assert not COMMANDS.search(logs.getvalue())


def test_what_is_printable_stays_as_it_is() -> None:
    assert escaped("schöne Grüße, 日本語 🎉") == "schöne Grüße, 日本語 🎉"
    assert escaped("a\x1bb\ud800\nc") == "a\\x1bb\\ud800\\nc"
