"""Random histories: what is needed is never deleted, and what is not needed and old always is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    ContributionFileRow,
    ContributionRow,
    ContributorRow,
    EventRow,
    ModelRow,
    RoundRow,
    Table,
)
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.usage import all_usage
from coldfusion_server.storage import ListedObject
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import TRANSITIONS, RoundState
from coldfusion_shared.schemas.models import Policy
from tests.server.backends import Backend, both_databases
from tests.server.repository import Repository, repository

pytestmark = both_databases

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGESTS = [f"{number:064x}" for number in range(12)]
SIZES = {digest: 10 ** (place % 4) + place for place, digest in enumerate(DIGESTS)}
PARTS = ("files", "master", "optimizer_state")
KEPT = {"declared", "completed", "quarantined", "accepted", "set_aside"}

digests = st.sampled_from(DIGESTS)


@dataclass(frozen=True)
class Part:
    """A file of a contribution."""

    sha256: str
    here: bool


@dataclass(frozen=True)
class Entry:
    """A contribution: state, files, and whether it was fused before it was withdrawn."""

    state: ContributionState
    files: list[Part]
    was_fused: bool = False

    @property
    def is_in_a_base(self) -> bool:
        withdrawn = self.state == ContributionState.WITHDRAWN
        return self.state == ContributionState.FUSED or (withdrawn and self.was_fused)


@dataclass(frozen=True)
class Iteration:
    """A round: state, candidate, contributions."""

    state: RoundState
    candidate: dict[str, list[str]] | None
    entries: list[Entry]


@dataclass(frozen=True)
class Line:
    """A model: retention, bases, rounds."""

    keep: int | None
    bases: list[dict[str, list[str]]]
    rounds: list[Iteration]


@dataclass(frozen=True)
class History:
    """All models, and what the store has: hours since each object was stored."""

    lines: list[Line]
    stored: dict[str, float]


manifests = st.fixed_dictionaries({part: st.lists(digests, max_size=2) for part in PARTS})
entries = st.builds(
    Entry,
    state=st.sampled_from(ContributionState),
    files=st.lists(
        st.builds(Part, sha256=digests, here=st.booleans()),
        max_size=2,
        unique_by=lambda p: p.sha256,
    ),
    was_fused=st.booleans(),
)


def iteration(
    state: RoundState, candidate: dict[str, list[str]] | None, entries: list[Entry]
) -> Iteration:
    """Return a round; contributions are fused in the transaction that publishes theirs."""
    if state != RoundState.PUBLISHED:
        entries = [
            Entry(ContributionState.ACCEPTED, entry.files) if entry.is_in_a_base else entry
            for entry in entries
        ]
    return Iteration(state, candidate, entries)


iterations = st.builds(
    iteration,
    state=st.sampled_from([state for state in RoundState if state != RoundState.OPEN]),
    candidate=st.none() | manifests,
    entries=st.lists(entries, max_size=3),
)
lines = st.builds(
    Line,
    keep=st.none() | st.integers(0, 3),
    bases=st.lists(manifests, max_size=2),
    rounds=st.lists(iterations, max_size=4),
)
histories = st.builds(
    History,
    lines=st.lists(lines, max_size=2),
    stored=st.dictionaries(digests, st.sampled_from([0.0, 23.9, 24.0, 24.1, 1000.0])),
)


def kept(line: Line, *, arrived: bool = False) -> set[str]:
    """Return what the model's contributions need, by the rule as the documentation has it."""
    found = set()
    for place, round_ in enumerate(line.rounds):
        published = [other.state for other in line.rounds[place:]].count(RoundState.PUBLISHED)
        in_time = line.keep is None or published <= line.keep
        for entry in round_.entries:
            if entry.state == ContributionState.DECLARED and arrived:
                continue
            if entry.state.value in KEPT or (entry.is_in_a_base and in_time):
                found |= {part.sha256 for part in entry.files if not part.here}
    return found


def needed(history: History) -> set[str]:
    """Return what is needed by anything."""
    found = set()
    for line in history.lines:
        found |= based(line) | kept(line)
        for round_ in line.rounds:
            if round_.candidate is not None and TRANSITIONS[round_.state]:
                found |= {digest for part in PARTS for digest in round_.candidate[part]}
    return found


def based(line: Line) -> set[str]:
    return {digest for base in line.bases for part in PARTS for digest in base[part]}


def size(digests: Iterable[str]) -> int:
    return sum(SIZES[digest] for digest in digests)


class Crash(BaseException):
    """The process is killed."""


@dataclass
class Memory:
    """As much of a store as a collection needs; it may end the process at a deletion."""

    times: dict[str, datetime] = field(default_factory=dict)
    crash_at: int | None = None

    def objects(self) -> Iterator[ListedObject]:
        for digest, stored_at in list(self.times.items()):
            yield ListedObject(digest, SIZES[digest], stored_at)

    def stored_at(self, digest: str) -> datetime | None:
        return self.times.get(digest)

    def delete(self, digest: str) -> None:
        if self.crash_at == 0:
            raise Crash
        if self.crash_at is not None:
            self.crash_at -= 1
        del self.times[digest]

    def claim(self, owner: str) -> str:
        return owner

    def pending_uploads(self) -> list[str]:
        return []

    def clean(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Repository]:
    memory: Any = Memory()
    with (
        backend.database() as url,
        repository(tmp_path_factory.mktemp("rule"), url, store=memory) as opened,
    ):
        opened.clock.now = NOW
        yield opened


# Whoever refers to another first.
TABLES: tuple[type[Table], ...] = (
    EventRow,
    ContributionFileRow,
    ContributionRow,
    CandidateRow,
    RoundRow,
    BaseRow,
    ModelRow,
)


def write(repo: Repository, history: History) -> None:
    """Make the rows of `history`, and the store that it tells of."""
    with repo.ctx.database.write() as session:
        for table in TABLES:
            session.execute(delete(table))
        person = session.scalar(select(ContributorRow))
        if person is None:
            person = ContributorRow(name="ann", created_at=NOW)
            session.add(person)
            session.flush()
        for place, line in enumerate(history.lines):
            model = ModelRow(
                name=f"demo/m{place}", public=True, created_at=NOW, current=0,
                policy=Policy(keep_contributions=line.keep).model_dump(),
            )  # fmt: skip
            session.add(model)
            session.flush()
            session.add_all(base_rows(model, line.bases))
            for number, round_ in enumerate(line.rounds):
                add_round(session, person, model, number + 1, round_)
    memory: Any = repo.ctx.store
    memory.crash_at = None
    memory.times = {
        digest: NOW - timedelta(hours=hours) for digest, hours in history.stored.items()
    }


def base_rows(model: ModelRow, bases: Iterable[dict[str, list[str]]]) -> Iterator[BaseRow]:
    for number, manifest in enumerate(bases):
        written = text(manifest)
        yield BaseRow(
            model_id=model.id, number=number, manifest=written, created_at=NOW,
            digest=hashlib.sha256(written.encode()).hexdigest(),
        )  # fmt: skip


def text(manifest: dict[str, list[str]]) -> str:
    """Return a manifest as far as a collection reads it."""
    return json.dumps(
        {
            part: [
                {"path": "f", "sha256": digest, "size": SIZES[digest]} for digest in manifest[part]
            ]
            for part in PARTS
        }
    )


def add_round(
    session: Any, person: ContributorRow, model: ModelRow, number: int, round_: Iteration
) -> None:
    row = RoundRow(
        model_id=model.id, number=number, state=round_.state, base_number=0, opened_at=NOW,
    )  # fmt: skip
    session.add(row)
    session.flush()
    if round_.candidate is not None:
        session.add(
            CandidateRow(
                id=f"{model.id}-{number}", model_id=model.id, round_id=row.id, created_at=NOW,
                manifest=text(round_.candidate), given_up=not TRANSITIONS[round_.state],
            )
        )  # fmt: skip
    for place, entry in enumerate(round_.entries):
        identity = f"{model.id}-{number}-{place}"
        session.add(
            ContributionRow(
                id=identity, model_id=model.id, round_id=row.id, base_number=0,
                contributor_id=person.id, state=entry.state, encoding="full",
                idempotency_key=identity, request_sha256="0" * 64, work={}, findings=[],
                tensors_digest=None, declared_at=NOW, expires_at=NOW,
                result_number=1 if entry.is_in_a_base else None,
                files=[
                    ContributionFileRow(
                        path=f"f{index}", size=SIZES[part.sha256], sha256=part.sha256,
                        part_bytes=1, here=part.here,
                    )
                    for index, part in enumerate(entry.files)
                ],
            )
        )  # fmt: skip


def promised(repo: Repository) -> set[str]:
    """Return what rows of files say is to be had, for contributions that have arrived."""
    query = (
        select(ContributionFileRow.sha256)
        .join(ContributionRow)
        .where(
            ContributionFileRow.erased_at.is_(None),
            ~ContributionFileRow.here,
            ContributionRow.state == ContributionState.FUSED,
        )
    )
    with repo.ctx.database.read() as session:
        return set(session.scalars(query))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, crash_at=st.none() | st.integers(0, 4))
def test_the_needed_stays_and_the_rest_goes_whenever_it_is_killed(
    slate: Repository, history: History, crash_at: int | None
) -> None:
    write(slate, history)
    memory: Any = slate.ctx.store
    before = set(memory.times)
    keep = needed(history)
    young = {digest for digest, hours in history.stored.items() if hours < 24.0}

    dry = collect(slate.ctx, "gc", dry_run=True)
    assert set(memory.times) == before
    memory.crash_at = crash_at
    try:
        collect(slate.ctx, "gc")
    except Crash:
        # Whoever was killed leaves no row that promises bytes which are gone.
        assert before & promised(slate) <= set(memory.times)
        assert before & keep <= set(memory.times)
    memory.crash_at = None
    collect(slate.ctx, "gc")
    assert set(memory.times) == before & (keep | young)
    assert dry.total.objects == len(before - keep - young)
    assert dry.total.bytes == size(before - keep - young)
    assert (dry.kept.objects, dry.young.objects) == (
        len(before & keep), len(before & young - keep)
    )  # fmt: skip
    assert before & promised(slate) <= set(memory.times)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories)
def test_use_is_what_is_needed(slate: Repository, history: History) -> None:
    write(slate, history)
    found = all_usage(slate.ctx, slate.principal("op", "admin"))
    waiting = [
        part
        for line in history.lines
        for round_ in line.rounds
        for entry in round_.entries
        for part in entry.files
        if entry.state == ContributionState.DECLARED and not part.here
    ]
    unfinished = size(part.sha256 for part in waiting)
    assert sum(model.unfinished_bytes for model in found.models) == unfinished
    assert sum(person.unfinished_bytes for person in found.contributors) == unfinished
    everything = set()
    for line, model in zip(history.lines, found.models, strict=True):
        arrived = kept(line, arrived=True)
        assert (model.bases, model.base_bytes) == (len(line.bases), size(based(line)))
        assert model.kept_bytes == size(arrived)
        everything |= based(line) | arrived
    assert found.total_bytes == size(everything) + unfinished
    by_all = {digest for line in history.lines for digest in kept(line, arrived=True)}
    assert sum(person.kept_bytes for person in found.contributors) == size(by_all)
