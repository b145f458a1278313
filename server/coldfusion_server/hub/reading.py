"""What is in a revision: the model's facts, its files, its history."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from coldfusion_server.api.admission import Admission
from coldfusion_server.hub import facts
from coldfusion_server.hub.answers import no_entry, one_line
from coldfusion_server.hub.facts import date_of
from coldfusion_server.hub.pages import next_page, place_of, window_of
from coldfusion_server.hub.routing import Call, get, post
from coldfusion_server.services import pulled, revisions
from coldfusion_server.services.revisions import MAIN, Revision, revision_of
from coldfusion_server.services.tokens import require
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role

# Of one page of a tree; the hub's own pages have as many.
TREE_PAGE = 1000
COMMITS_PAGE = 50
MOST_PATHS = 1000
JSON_TYPE = "application/json"


def info(call: Call) -> Response:
    """Tell what a revision is, the head where none is named."""
    revision = revision_of(call.ctx, call.model, call.values.get("rev", MAIN), call.who)
    body = facts.of_model(call, revision)
    if call.is_set("blobs"):
        body["siblings"] = [_sibling(file) for file in revision.files]
    return JSONResponse(body, headers=headers_of(revision))


def tree(call: Call) -> Response:
    """List the files below a folder, or what is right in it."""
    revision = revision_of(call.ctx, call.model, call.values["rev"], call.who)
    folder = call.values["path"].strip("/")
    entries = _below(revision, folder, recursive=call.is_set("recursive"))
    if folder and not entries:
        words = f"{revision.model} {revision.name} has no folder {folder[:200]!r}."
        return no_entry(words, revision.commit)
    window = window_of(call, TREE_PAGE)
    start = place_of(window)
    stop = start + window.limit
    more = str(stop) if stop < len(entries) else None
    listed = [_entry(item) for item in entries[start:stop]]
    return JSONResponse(listed, headers={**headers_of(revision), **next_page(call, more)})


def paths_info(call: Call) -> Response:
    """List those of some paths that there are: a form, or JSON."""
    revision = revision_of(call.ctx, call.model, call.values["rev"], call.who)
    found = {path_of(item): item for item in _below(revision, "", recursive=True)}
    wanted = dict.fromkeys(path.strip("/") for path in _paths(call))
    listed = [_entry(found[path]) for path in wanted if path in found]
    return JSONResponse(listed, headers=headers_of(revision))


def refs(call: Call) -> Response:
    """List the head, a branch, and the bases, which are tags."""
    found = revisions.list_refs(call.ctx, call.model, call.who)
    body: dict[str, Any] = {
        "branches": [_ref(MAIN, "heads", commit) for _, commit, is_head in found if is_head],
        "tags": [_ref(version, "tags", commit) for version, commit, _ in found],
        "converts": [],
    }
    if call.is_set("include_prs") or call.is_set("include_pull_requests"):
        pulls = pulled.readable_pulls(call.ctx, call.model, call.who)
        body["pullRequests"] = [
            {**_ref(str(number), "pr", commit), "name": f"refs/pr/{number}"}
            for number, commit in pulls
        ]
    return JSONResponse(body)


def commits(call: Call) -> Response:
    """List a revision and what it comes from, newest first."""
    window = window_of(call, COMMITS_PAGE)
    page = revisions.list_commits(call.ctx, call.model, call.values["rev"], call.who, window)
    listed = [_commit(item) for item in page.items]
    return JSONResponse(listed, headers=next_page(call, page.next_cursor))


def may_read(call: Call) -> Response:
    """Say that the model may be read, by being there."""
    revision_of(call.ctx, call.model, MAIN, call.who)
    return JSONResponse({})


def may_push(call: Call) -> Response:
    """Say that contributions may be pushed; raises what a push would."""
    revision_of(call.ctx, call.model, MAIN, call.who)
    require(call.who, Role.CONTRIBUTOR, call.model)
    return JSONResponse({})


def headers_of(revision: Revision) -> dict[str, str]:
    """Return what every answer about a revision says: its commit, and whether it was left."""
    headers = {"X-Repo-Commit": revision.commit}
    if revision.taken_back is not None:
        headers["X-HF-Warning"] = one_line(f"rollback; {revision.taken_back}")
    return headers


def path_of(item: FileEntry | str) -> str:
    """Return the path of a file, or of a folder, which is a path."""
    return item if isinstance(item, str) else item.path


def _below(revision: Revision, folder: str, *, recursive: bool) -> list[FileEntry | str]:
    """Return what is in a folder, "" for the whole, by path; folders are their own paths."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, FileEntry | str] = {}
    for file in revision.files:
        if not file.path.startswith(prefix):
            continue
        *folders, _ = file.path.removeprefix(prefix).split("/")
        for depth in range(1, len(folders) + 1):
            path = prefix + "/".join(folders[:depth])
            if recursive or depth == 1:
                found[path] = path
        if recursive or not folders:
            found[file.path] = file
    return [found[path] for path in sorted(found)]


def _entry(item: FileEntry | str) -> dict[str, Any]:
    if isinstance(item, str):
        oid = hashlib.sha1(item.encode(), usedforsecurity=False).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": item}
    pointer = _pointer(item)
    lfs = {"oid": item.sha256, "size": item.size, "pointerSize": len(pointer)}
    oid = _blob_id(pointer)
    return {"type": "file", "oid": oid, "size": item.size, "path": item.path, "lfs": lfs}


def _sibling(file: FileEntry) -> dict[str, Any]:
    pointer = _pointer(file)
    lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": len(pointer)}
    return {"rfilename": file.path, "size": file.size, "blobId": _blob_id(pointer), "lfs": lfs}


def _pointer(file: FileEntry) -> bytes:
    """Return the text that git would keep in the file's place: no byte of it need be read."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n"
    ).encode()


def _blob_id(content: bytes) -> str:
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _paths(call: Call) -> Iterable[str]:
    if call.request.headers.get("content-type", "").startswith(JSON_TYPE):
        try:
            given = json.loads(call.body).get("paths", [])
        except (ValueError, RecursionError, AttributeError):
            raise InvalidRequest("The body is not JSON with a list of paths.") from None
    else:
        given = parse_qs(call.body.decode("utf-8", "replace")).get("paths", [])
    paths = [given] if isinstance(given, str) else given
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InvalidRequest("paths is not a list of paths.")
    if len(paths) > MOST_PATHS:
        raise InvalidRequest(f"At most {MOST_PATHS} paths may be asked for at once.")
    return paths


def _ref(name: str, kind: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _commit(item: revisions.Commit) -> dict[str, Any]:
    return {
        "id": item.commit,
        "title": item.title,
        "message": "",
        "authors": [{"user": name} for name in item.authors],
        "date": date_of(item.created_at),
    }


_MODEL = "/api/models/{owner}/{name}"
# A body that asks, and changes nothing.
_QUESTION = Admission(visitors=True, body_bytes=262_144)

ROUTES = (
    get(_MODEL, info),
    get(f"{_MODEL}/revision/{{rev}}", info),
    get(f"{_MODEL}/tree/{{rev}}/{{path*}}", tree),
    get(f"{_MODEL}/refs", refs),
    get(f"{_MODEL}/commits/{{rev}}", commits),
    get(f"{_MODEL}/auth-check", may_read),
    get(f"{_MODEL}/auth-check/write", may_push),
    post(f"{_MODEL}/paths-info/{{rev}}", paths_info, _QUESTION),
)
