"""Pull requests as the hub's clients list and show them: what became of a contribution."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.responses import JSONResponse, RedirectResponse, Response

from coldfusion_server.hub.answers import error
from coldfusion_server.hub.bodies import Body, read
from coldfusion_server.hub.facts import date_of
from coldfusion_server.hub.ndjson import title_of, words_of
from coldfusion_server.hub.receipts import Said, said_of
from coldfusion_server.hub.refused import MERGES
from coldfusion_server.hub.routing import Call, HubRoute, get, post
from coldfusion_server.hub.targets import number_of, url_of
from coldfusion_server.services import pulled, pulls
from coldfusion_server.services.pulled import Pull, Status
from coldfusion_server.services.revisions import MAIN, revision_of

PAGE = 50
MAX_PAGES = 10**6
# Who tells what became of it.
REPOSITORY = "coldfusion"
NO_TALK = (
    "People do not talk here: a pull request shows what becomes of a contribution. To take yours "
    "back: coldfusion-client withdraw ID."
)


class _Opened(Body):
    title: str
    description: str = ""
    is_pull: Annotated[bool, Field(alias="pullRequest")] = False


def create(call: Call) -> Response:
    """Make a pull request that files are pushed to afterwards."""
    revision_of(call.ctx, call.model, MAIN, call.who)
    opened = read(call, _Opened)
    if not opened.is_pull:
        return error(403, NO_TALK)
    title, words = title_of(opened.title), words_of(opened.description)
    pull = pulls.open_pull(call.ctx, call.model, call.who, title, words)
    return JSONResponse({**_summary(pull), "url": url_of(call, pull.number)}, 201)


def listed(call: Call) -> Response:
    """List the model's pull requests, newest first."""
    page = _page(call)
    status = call.query("status")
    if call.query("type") == "discussion":
        return JSONResponse({"count": 0, "start": 0, "discussions": []})
    count, found = pulled.list_pulls(
        call.ctx,
        call.model,
        call.who,
        start=page * PAGE,
        limit=PAGE,
        contributor=call.query("author"),
        is_open=None if status not in ("open", "closed") else status == "open",
    )
    told = [_summary(pull) for pull in found]
    return JSONResponse({"count": count, "start": page * PAGE, "discussions": told})


def details(call: Call) -> Response:
    """Show a pull request: what its contributor said, and what became of it."""
    pull = pulled.get_pull(call.ctx, call.model, number_of(call), call.who)
    body = {
        **_summary(pull),
        "changes": {"base": "refs/heads/main", "mergeCommitId": None},
        "filesWithConflicts": [],
        "events": [_comment(pull, said) for said in said_of(pull, call.base_url)],
    }
    if call.is_set("diff"):
        body["diff"] = "".join(_diff(file.path, file.sha256, file.size) for file in pull.files)
    return JSONResponse(body)


def page(call: Call) -> Response:
    """Lead people to the page of the contribution, or of the model while there is none."""
    pull = pulled.get_pull(call.ctx, call.model, number_of(call), call.who)
    made = pull.contribution
    where = f"models/{pull.model}" if made is None else f"contributions/{made.id}"
    return RedirectResponse(f"{call.base_url}/{where}", 303)


def commit_page(call: Call) -> Response:
    """Lead people from a commit to what it is: a contribution, or a base."""
    commit = call.values["commit"]
    number = pulled.find_commit(call.ctx, call.model, commit, call.who)
    if number is not None:
        return RedirectResponse(url_of(call, number), 303)
    found = revision_of(call.ctx, call.model, commit, call.who)
    return RedirectResponse(f"{call.base_url}/models/{call.model}/bases/{found.name}", 303)


def refused(call: Call) -> Response:
    """Refuse comments, and everything else that would change a pull request."""
    pulled.get_pull(call.ctx, call.model, number_of(call), call.who)
    return error(403, MERGES if call.values["rest"] == "merge" else NO_TALK)


def _page(call: Call) -> int:
    given = call.query("p") or "0"
    digits = given.isascii() and given.isdigit() and len(given) < 9
    return min(int(given), MAX_PAGES) if digits else 0


def _summary(pull: Pull) -> dict[str, Any]:
    return {
        "num": pull.number,
        "title": pull.title,
        "status": pull.status.value,
        "isPullRequest": True,
        "createdAt": date_of(pull.created_at),
        "author": {"name": pull.contributor},
        "repo": {"name": pull.model, "type": "model"},
        "numComments": 1 if pull.status == Status.DRAFT else 2,
    }


def _comment(pull: Pull, said: Said) -> dict[str, Any]:
    return {
        "id": f"{pull.number}-{said.name}",
        "type": "comment",
        "createdAt": date_of(said.at),
        "author": {"name": pull.contributor if said.by_contributor else REPOSITORY},
        "data": {"edited": False, "hidden": False, "latest": {"raw": said.text}},
    }


def _diff(path: str, sha256: str, size: int) -> str:
    """Return the change of one file as git would show it, which keeps a pointer in its place."""
    return (
        f"diff --git a/{path} b/{path}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,3 @@\n"
        "+version https://git-lfs.github.com/spec/v1\n"
        f"+oid sha256:{sha256}\n+size {size}\n"
    )


_ALL = "/api/models/{owner}/{name}/discussions"
_ONE = f"{_ALL}/{{number}}"
ROUTES = (
    get(_ALL, listed),
    post(_ALL, create),
    get(_ONE, details),
    HubRoute(f"{_ONE}/{{rest*}}", refused, frozenset({"POST", "PUT", "PATCH", "DELETE"})),
    get("/{owner}/{name}/discussions/{number}", page),
    get("/{owner}/{name}/commit/{commit}", commit_page),
)
