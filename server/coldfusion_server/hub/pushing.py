"""A push's commit: what was sent becomes a pull request, and with it a contribution."""

from __future__ import annotations

import hashlib
import re

from starlette.responses import JSONResponse, Response

from coldfusion_server.api.admission import Admission
from coldfusion_server.hub.answers import one_line
from coldfusion_server.hub.ndjson import Commit, SentFile, read_commit
from coldfusion_server.hub.routing import Call, post
from coldfusion_server.hub.targets import Target, target_of, url_of
from coldfusion_server.services import pulls, staging, xorbs
from coldfusion_server.services.pulled import Pull
from coldfusion_server.services.pushed_files import Fate, check_has_weights, fate_of, fates_of
from coldfusion_shared.errors import InvalidRequest, TooLarge
from coldfusion_shared.schemas.files import FileEntry

# Settings of an adapter are smaller; weights are sent before the commit.
INLINE_BYTES = 2**20
BODY_BYTES = 4 * 2**20
CLIENT_LETTERS = 100
_HUB_CLIENT = re.compile(r"\bhf_hub/([0-9][0-9A-Za-z.+-]{0,40})")


def commit(call: Call) -> Response:
    """Take a push in; what is a whole contribution then goes its way."""
    target = target_of(call)
    wanted = read_commit(call.body)
    found = fates_of([(path, None, None) for path in wanted.paths])
    fates = dict(zip(wanted.paths, found, strict=True))
    _check(wanted, target, fates)
    taken = [path for path, fate in fates.items() if fate == Fate.TAKEN]
    files = [*_sent(wanted, taken), *_stored(call, wanted, taken)]
    push = pulls.Push(
        title=wanted.header.summary,
        description=wanted.header.description,
        files=tuple(files),
        client=client_of(call),
    )
    base = wanted.header.parent or target.base
    pull = pulls.commit(call.ctx, call.model, call.who, push, number=target.number, base=base)
    if pull.contribution is not None:
        xorbs.give_up(call.ctx, call.model, call.who, [file.sha256 for file in pull.files])
    told = _told(call, pull, created=target.number is None)
    return JSONResponse(told, headers=_prospect(call, pull))


def client_of(call: Call) -> str:
    """Return which program pushes, as the contribution's receipt says it."""
    agent = call.request.headers.get("user-agent", "")
    known = _HUB_CLIENT.search(agent)
    name = f"huggingface_hub {known[1]}" if known else agent[:CLIENT_LETTERS] or "a hub client"
    return f"{name}, through the hub door".replace("\0", "")


def _told(call: Call, pull: Pull, *, created: bool) -> dict[str, object]:
    told = {
        "success": True,
        "commitOid": pull.commit,
        "commitUrl": f"{call.base_url}/{call.model}/commit/{pull.commit}",
        "hookOutput": "",
    }
    return {**told, "pullRequestUrl": url_of(call, pull.number)} if created else told


def _prospect(call: Call, pull: Pull) -> dict[str, str]:
    """Return the header by which clients tell people what will become of a contribution."""
    if pull.prospect is None or pull.contribution is None:
        return {}
    where = url_of(call, pull.number)
    told = f"{pull.contribution.id}; Contributed. {pull.prospect} Follow it at {where}"
    return {"X-HF-Warning": one_line(told)}


def _check(wanted: Commit, target: Target, fates: dict[str, Fate]) -> None:
    if wanted.removed:
        raise InvalidRequest(
            f"{ascii(wanted.removed[0][:100])} cannot be taken away: a contribution adds weights.",
            hint="Push without deletions.",
        )
    if target.number is None:
        check_has_weights(fates.values())


def _sent(wanted: Commit, taken: list[str]) -> list[FileEntry]:
    return [_entry(file) for file in wanted.sent if file.path in taken]


def _entry(file: SentFile) -> FileEntry:
    if file.size is None:
        raise InvalidRequest(
            f"{file.path} is a copy of a file that is there already, and no new weights."
        )
    return FileEntry(path=file.path, size=file.size, sha256=file.sha256)


def _stored(call: Call, wanted: Commit, taken: list[str]) -> list[FileEntry]:
    """Store what came with the commit itself, and return it."""
    files = []
    for path, content in wanted.inline.items():
        if path not in taken:
            continue
        if len(content) > INLINE_BYTES:
            raise TooLarge(
                f"{path} came inside of the commit, where {INLINE_BYTES} bytes are the most.",
                hint="Use a client that sends large files before, as huggingface_hub does.",
            )
        fate_of(path, content[:512], len(content))
        given = staging.Wanted(hashlib.sha256(content).hexdigest(), len(content))
        staging.reserve(call.ctx, call.model, call.who, given)
        stored = call.ctx.store.put([content])
        staging.note_stored(call.ctx, call.model, call.who, stored.sha256, stored.size)
        files.append(FileEntry(path=path, size=stored.size, sha256=stored.sha256))
    return files


ROUTES = (
    post(
        "/api/models/{owner}/{name}/commit/{rev}",
        commit,
        Admission(body_bytes=BODY_BYTES),
    ),
)
