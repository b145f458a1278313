"""Models whose bases branch: rounds, late contributions, a rollback, a replay; and crowds."""

from __future__ import annotations

from datetime import UTC, datetime

from coldfusion_server.services import bases
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.head_moves import PUBLISHED
from coldfusion_server.services.lineage import Ancestor, Input, Lineage
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_shared.schemas.bases import FusedContribution, Manifest, ParentBase
from tests.dashboard.measured import go_to
from tests.server.lines import finetuned, replay, weights_of
from tests.server.lines import manifest_of as manifest_at
from tests.server.repository import MODEL, Repository

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def fuse(repo: Repository, made: dict[str, int]) -> list[str]:
    """Have a round fused of one contribution of each name, from the base of that number."""
    ids = []
    for name, number in made.items():
        manifest = manifest_at(repo, f"v{number}")
        seed = hash_of(f"{name} {len(repo.get(f'/v1/models/{MODEL}/bases')['items'])}")
        raw = finetuned(weights_of(repo, manifest), seed)
        ids.append(repo.contributor(name).contribute(raw, base=f"v{number}"))
        repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    return ids


def hash_of(text: str) -> int:
    """Return a number that is the same in every process."""
    return int.from_bytes(text.encode()[:6], "big") + sum(text.encode()) * 7


def tree(repo: Repository) -> None:
    """
    Make v1 to v8 of a model whose rounds close by hand.

    v3 is abandoned by a rollback to v2; v6 and v7 are a replay's, in place of v4 and v5.
    """
    fuse(repo, {"ann": 0, "bob": 0})
    fuse(repo, {"ann": 1, "bob": 0, "cyd": 1})
    fuse(repo, {"cyd": 2, "dan": 1})
    go_to(repo, "v2", "v3 was worse")
    ids = fuse(repo, {"ann": 2, "bob": 2})
    fuse(repo, {"cyd": 4, "dan": 2, "eli": 4})
    asked = replay(repo, without=[ids[1]], status=201)
    repo.work()
    replay(repo, f"/{asked['id']}/publish")
    fuse(repo, {"ann": 7, "eli": 7})


def crowd(repo: Repository, number: int, contributors: int = 0) -> None:
    """Add a base that was fused from so many contributions, of as many contributors."""
    with repo.ctx.database.write() as session:
        model = find_model(session, MODEL, repo.principal("max", "maintainer"))
        parent = manifest_of(find_base(session, model, f"v{model.current}"))
        inputs = [
            FusedContribution(
                id=f"{parent.version}-{item}",
                contributor=f"someone-{item % (contributors or number)}",
                files=parent.files[:1],
                weight=1 / number,
            )
            for item in range(number)
        ]
        manifest = Manifest(
            model=MODEL,
            version=f"v{model.current + 1}",
            created_at=repo.clock.now,
            files=parent.files,
            parent=ParentBase(version=parent.version, digest=parent.digest()),
            round=1,
            contributions=inputs,
            software="tests",
        )
        bases.add_base(repo.ctx, session, model, manifest, kind=PUBLISHED)


def lineage(
    parents: list[int | None],
    inputs: list[Input] | None = None,
    head: int | None = None,
    first: int = 0,
    last: int | None = None,
) -> Lineage:
    """Return a lineage by the parents of its bases; the newest is the head if not given."""
    number: int | None = len(parents) - 1 if head is None else head
    line = set()
    while number is not None:
        line.add(number)
        number = parents[number]
    found = [
        Ancestor(
            number=index,
            parent=parent,
            replays=None,
            created_at=NOW,
            current=index == (len(parents) - 1 if head is None else head),
            abandoned=index not in line,
            round=index or None,
        )
        for index, parent in enumerate(parents)
    ]
    return Lineage(
        "demo/tiny", found, first, len(parents) - 1 if last is None else last, inputs or []
    )


def given(result: int, made_from: int, name: str = "ann", number: int = 0, **more: float) -> Input:
    """Return a contribution that went into base `result`."""
    return Input(
        id=f"{hash_of(name):x}-{number}-{result}-{made_from}",
        contributor=name,
        made_from=made_from,
        result=result,
        weight=more.get("weight", 0.5),
        staleness=int(more.get("staleness", result - 1 - made_from)),
    )
