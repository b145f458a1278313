"""Where a push goes: to a new pull request, or to one that there is. Never to a branch."""

from __future__ import annotations

from dataclasses import dataclass

from coldfusion_server.hub.routing import Call
from coldfusion_server.services import pulled
from coldfusion_server.services.revisions import MAIN, revision_of
from coldfusion_server.services.tokens import require
from coldfusion_shared.errors import ContributionNotFound, Forbidden
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.tokens import Role

HEADS = frozenset({MAIN, "HEAD", "refs/heads/main"})


@dataclass(frozen=True)
class Target:
    """
    Where a push goes.

    Attributes:
        number: of the pull request; null: a new one.
        base: the revision that it was made from; null: as the pull request has it, or the head.
        files: what is there already, by path.
    """

    number: int | None
    base: str | None
    files: dict[str, FileEntry]


def target_of(call: Call) -> Target:
    """
    Return where the push of a call goes.

    Raises:
        Forbidden: to a branch or a tag, or to somebody else's pull request.
        ModelNotFound, BaseNotFound, ContributionNotFound: there is no such thing.
    """
    revision = call.values["rev"]
    number = pulled.pull_number(revision)
    # Whoever may not read the model is not told what it has.
    found = revision_of(call.ctx, call.model, MAIN if number else revision, call.who)
    who = require(call.who, Role.CONTRIBUTOR, call.model)
    files = {file.path: file for file in found.files}
    if number is not None:
        pull = pulled.get_pull(call.ctx, call.model, number, who)
        if pull.contributor != who.name:
            raise Forbidden("This pull request is somebody else's.")
        return Target(number, None, files | {file.path: file for file in pull.files})
    if not call.is_set("create_pr"):
        raise Forbidden(
            f"Nobody pushes to {ascii(revision[:60])} of {call.model}: its versions are made by "
            "this Repository, when contributions are fused.",
            hint="Send yours as a pull request: create_pr=True, or hf upload --create-pr.",
        )
    return Target(None, None if revision in HEADS else revision, files)


def url_of(call: Call, number: int) -> str:
    """Return the address of a pull request."""
    return f"{call.base_url}/{call.model}/discussions/{number}"


def number_of(call: Call) -> int:
    """Return the number of the discussion that a call is about; raises `ContributionNotFound`."""
    number = pulled.pull_number(f"refs/pr/{call.values['number']}")
    if number is None:
        raise ContributionNotFound(f"{call.model} has no pull request of that number.")
    return number
