"""What a base contains is contributed once: withdrawing it does not let it in again."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.services.closing import close_due
from tests.server.backends import both_databases
from tests.server.repository import Repository, body_file, body_of, tiny_tensors
from tests.server.test_round_way import accepted
from tests.server.test_withdrawal import receipt, withdraw
from tests.shared.checkpoints import file_bytes

pytestmark = both_databases


@pytest.mark.parametrize("name", ["c1", "c9"])
def test_what_a_base_contains_cannot_be_sent_again(repo: Repository, name: str) -> None:
    ids = [
        repo.contributor(f"c{seed}").contribute(body_file(seed), key=f"the key of {seed}")
        for seed in (1, 2)
    ]
    repo.work()
    close_due(repo.ctx)
    repo.work()
    assert withdraw(repo, ids[0]).json()["contained_in"] == ["v1"]
    who = repo.contributor(name)
    answer = who.declare(body_file(1), key="another key")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_contributed")
    # The same tensors in another file are found when they are screened.
    tensors = dict(reversed(body_of(tiny_tensors(), 1).items()))
    other = who.contribute(file_bytes(tensors, metadata={"a": "b"}))
    repo.work()
    assert receipt(repo, other)["state"] == "rejected"
    assert "contributed before" in receipt(repo, other)["reason"]
    if name == "c1":
        again = who.declare(body_file(1), key="the key of 1").json()
        assert again["contribution"]["id"] == ids[0]


def test_the_database_itself_keeps_withdrawn_weights_out(repo: Repository) -> None:
    ids = accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    withdraw(repo, ids[0])
    third = accepted(repo, [3])[0]
    with pytest.raises(IntegrityError), repo.ctx.database.write() as session:
        rows = {row.id: row for row in session.scalars(select(ContributionRow))}
        rows[third].tensors_digest = rows[ids[0]].tensors_digest
