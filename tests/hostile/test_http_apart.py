"""
No sequence of calls lets one contributor read or change what is another's.

Ann has a contribution in each state. Others, who know all ids, digests and keys that were ever
shown, make any calls that the API has, in any order; afterwards Ann's rows and her parts are what
they were, and nothing that only she was told has been told to anybody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select

from coldfusion_server.api.session import COOKIE, make_session
from coldfusion_server.db.tables import ContributionFileRow, ContributionRow, TokenRow
from coldfusion_shared.contributions import ContributionState
from tests.server.repository import (
    MODEL,
    Contributor,
    Repository,
    body_file,
    declaration,
    repository,
)

TIMES = int(os.environ.get("COLDFUSION_FUZZ", "1"))
PRIVATE = "demo/private"
KEY = "the key that ann has used"
OTHERS = ("visitor", "bob", "rea", "eva", "bob by cookie")
# What Ann's contributions are asked to become; of a stranger each is refused.
ACTS = ("upload", "complete", "withdraw", "release", "reject")
REFUSED = {401, 403, 404, 405, 422}
SIGNATURE = re.compile(r"signature=([0-9a-f]{64})")


@dataclass
class Community:
    """A Repository, what is Ann's in it, and the others."""

    repo: Repository
    clients: dict[str, TestClient]
    anns: list[str]
    raws: list[bytes]
    routes: list[tuple[str, str]]
    # What only Ann was told.
    secrets: set[str] = field(default_factory=set)

    def stand(self) -> Any:
        """Return all that is Ann's, as it is stored."""
        with self.repo.ctx.database.read() as session:
            rows: list[Any] = [
                *session.scalars(select(ContributionRow).where(ContributionRow.id.in_(self.anns))),
                *session.scalars(
                    select(ContributionFileRow).where(
                        ContributionFileRow.contribution_id.in_(self.anns)
                    )
                ),
                *session.scalars(select(TokenRow).where(TokenRow.contributor.has(name="ann"))),
            ]
            kept = [
                {
                    column.key: getattr(row, column.key)
                    for column in inspect(row).mapper.column_attrs
                }
                for row in rows
            ]
        parts = [self.repo.ctx.store.parts(f"{contribution}.0") for contribution in self.anns]
        there = [self.repo.ctx.store.exists(one["sha256"]) for one in kept if "sha256" in one]
        return sorted(map(repr, kept)), parts, there


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("apart")
    with repository(folder, rate_per_address=0, rate_per_token=0, wrong_tokens=0) as repo:
        repo.model(min_contributions=90)
        repo.model(PRIVATE, public=False, min_contributions=90)
        token = repo.token("ann")
        ann = repo.contributor("ann")
        raws = [body_file(seed) for seed in range(4)]
        accepted = ann.contribute(raws[0])
        repo.work()
        completed = ann.contribute(raws[1])
        uploaded = ann.sent(raws[2], key=KEY)
        declared = ann.declare(raws[3], model=PRIVATE).json()["contribution"]["id"]
        clients = {
            "visitor": repo.client(),
            "bob": repo.client(repo.token("bob")),
            "rea": repo.client(repo.token("rea", "reader")),
            "eva": repo.client(repo.token("eva", "evaluator")),
            "bob by cookie": repo.client(),
        }
        session = make_session(repo.ctx, repo.principal("bob").token_id)
        clients["bob by cookie"].cookies.set(COOKIE, session)
        document = repo.app.openapi()["paths"]
        routes = [(method.upper(), path) for path, found in document.items() for method in found
                  if not path.endswith("/stream")]  # fmt: skip
        anns = [accepted, completed, uploaded, declared]
        found = Community(repo, clients, anns, raws, routes)
        for contribution in anns[2:]:
            plan = ann.client.get(f"/v1/contributions/{contribution}/upload").text
            found.secrets |= set(SIGNATURE.findall(plan))
        found.secrets |= {token, token.split("_", 2)[2], KEY}
        yield found


def filled(path: str, contribution: str, model: str) -> str:
    """Return a path with what there is in place of its parameters."""
    owner, name = model.split("/")
    values = {"owner": owner, "name": name, "version": "v0", "number": "1", "path": "config.json",
              "contribution": contribution, "upload": f"{contribution}.0"}  # fmt: skip
    return re.sub(r"{([^}]+)}", lambda found: values.get(found[1], "0" * 16), path)


def bodies(community: Community, contribution: str, which: int) -> list[Any]:
    """Return what may be sent along, some of it meant to be taken for Ann's."""
    anns = declaration(community.raws[which])
    return [
        None,
        {},
        {"reason": "why", "erase": True},
        {"reason": "why"},
        anns,
        {**anns, "contributor": "ann", "id": contribution, "state": "accepted"},
        {**anns, "weights_sha256": anns["files"][0]["sha256"], "base": "v0"},
        {"suite": "s", "protocol": "frozen", "scores": {"a": 1.0}, "evaluator": "ann"},
        {"name": "ann", "role": "admin"},
    ]


call = st.tuples(
    st.sampled_from(OTHERS),
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.sampled_from([MODEL, PRIVATE]),
    st.integers(0, 8),
    st.sampled_from([KEY, "another key of another"]),
    st.sampled_from(["", "?contributor=ann", "?contributor=me&limit=200", "?model=demo/private",
                     "?size=1&expires=99999999999&signature=" + "0" * 64]),
)  # fmt: skip


@settings(max_examples=40 * TIMES, deadline=None)
@given(calls=st.lists(call, min_size=1, max_size=12))
def test_others_neither_read_nor_change_what_is_anns(
    calls: list[tuple[str, int, int, str, int, str, str]], community: Community
) -> None:
    before = community.stand()
    for who, route, which, model, body, key, query in calls:
        method, path = community.routes[route % len(community.routes)]
        contribution = community.anns[which]
        answer = community.clients[who].request(
            method,
            filled(path, contribution, model) + query,
            json=bodies(community, contribution, which)[body],
            headers={"Idempotency-Key": key},
        )
        check(community, answer, method, filled(path, contribution, model))
    assert community.stand() == before


@settings(max_examples=10 * TIMES, deadline=None)
@given(
    which=st.integers(0, 3),
    erase=st.booleans(),
    order=st.permutations(["upload", "complete", "withdraw"]),
)
def test_a_copy_of_anns_weights_does_nothing_to_hers(
    which: int, erase: bool, order: list[str], community: Community
) -> None:
    """Bob has got hold of her bytes; whatever he does with them, hers stay."""
    repo, bob = community.repo, community.repo.contributor("bob")
    model = PRIVATE if which == 3 else MODEL
    before = community.stand()
    declared = bob.declare(community.raws[which], model=model, key=f"bob's {which} {order}"[:128])
    if declared.status_code in (200, 201):
        mine = declared.json()["contribution"]["id"]
        assert mine not in community.anns
        for act in order:
            if act == "upload" and state(bob, mine) == ContributionState.DECLARED:
                bob.upload(bob.client.get(f"/v1/contributions/{mine}/upload").json(),
                           community.raws[which])  # fmt: skip
            elif act == "complete":
                bob.complete(mine)
            elif act == "withdraw":
                bob.client.post(f"/v1/contributions/{mine}/withdraw", json={"erase": erase})
    else:
        check(community, declared, "POST", "")
    assert community.stand() == before
    assert repo.get("/v1/models", repo.token("ann"))["items"]


def state(who: Contributor, contribution: str) -> str:
    return str(who.client.get(f"/v1/contributions/{contribution}").json()["state"])


def check(community: Community, answer: Any, method: str, path: str) -> None:
    """Check that an answer to somebody else gives away nothing, and did nothing."""
    assert answer.status_code < 500, (method, path, answer.text)
    said = answer.text + repr(answer.headers.raw)
    assert not [secret for secret in community.secrets if secret in said], (method, path)
    theirs = any(f"/{one}/" in path or path.endswith(f"/{one}") for one in community.anns)
    if theirs and path.rsplit("/", 1)[1] in ACTS or "/uploads/" in path:
        assert answer.status_code in REFUSED, (method, path, answer.text)


def test_a_list_of_mine_has_nothing_of_anns(community: Community) -> None:
    for who in ("bob", "rea", "eva", "bob by cookie"):
        client = community.clients[who]
        mine = client.get(f"/v1/models/{MODEL}/contributions?contributor=me").json()["items"]
        assert not {one["id"] for one in mine} & set(community.anns)
        assert client.get("/v1/usage/me").json().get("contributor") != "ann"
    private = f"/v1/models/{PRIVATE}/contributions"
    assert community.clients["visitor"].get(private).status_code == 404
    hidden = community.clients["visitor"].get(f"/v1/contributions/{community.anns[3]}")
    assert hidden.status_code == 404
