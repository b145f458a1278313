"""
Contributors, schedulers, workers that die, maintainers and clocks, in any order, by hypothesis.

Whatever they do, after each step nothing is lost, nothing is fused twice and the bases hang
together; and in the end, with no more deaths, every round comes to its end. `make soak` tries more.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.database import Database
from coldfusion_server.db.tables import (
    BaseRow,
    CandidateRow,
    ContributionRow,
    ModelRow,
    RoundRow,
)
from coldfusion_server.services import (
    again,
    cancelling,
    closing,
    contributions,
    declaring,
    ending,
    leases,
    publishing,
    rollback,
    screening,
    verifying,
    withdrawal,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.models import create_model
from coldfusion_server.services.tokens import authenticate, create_token
from coldfusion_server.settings import Settings
from coldfusion_server.storage.local import LocalStore
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import (
    BaseOutdated,
    RoundNotClosable,
    RoundNotFound,
    StateConflict,
    StorageFull,
)
from coldfusion_shared.rounds import ENDS, RoundState
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.contributions import Declaration, Withdrawal
from coldfusion_shared.schemas.models import Policy, RollbackRequest
from coldfusion_shared.schemas.rounds import AgainRequest
from coldfusion_shared.schemas.tokens import Role
from tests.server.repository import (
    ANY_UPDATE,
    MODEL,
    SIGNING_KEY,
    Clock,
    body_of,
    declaration,
    memory,
    repository,
    tiny_folder,
    tiny_tensors,
)
from tests.shared.checkpoints import file_bytes

_C, _R = ContributionState, RoundState
NAMES = ("ann", "bob", "cem")
STEPS = 40
FAR = st.sampled_from([False, False, False, True])
PEOPLE = st.sampled_from(NAMES)
# By whom, how many bases behind the newest one, and whether its step is long.
MADE = st.lists(st.tuples(PEOPLE, st.integers(0, 2), FAR), min_size=1, max_size=4)
# Where a worker can die, in the order of a round's life.
POINTS = (
    "round.begun",
    "round.fused",
    "round.evaluating",
    "round.gating",
    "round.publishing",
    "round.ended",
)
SCREENING_POINTS = ("_begin", "_store", "_write_verdict", "_clear_away")
# How often what is done; one rule, since hypothesis leaves out rules to its own liking.
ACTIONS = [
    name
    for name, times in {
        "contribute": 4,
        "work": 6,
        "screen": 1,
        "schedule": 1,
        "declare": 1,
        "complete": 1,
        "withdraw": 1,
        "close": 1,
        "interfere": 1,
        "fuse_again": 1,
        "wait": 1,
    }.items()
    for _ in range(times)
]
# Of the third, some steps are too long, so that its gate rejects them.
POLICIES = (
    {"min_contributions": 2},
    {"min_contributions": 2, "max_per_contributor": 1, "max_staleness": 1},
    {"min_contributions": 1, "gate": {"kind": "norm", "max_relative_norm": 0.01}},
    {"min_contributions": 2, "max_staleness": 0, "after_rollback": "refuse"},
    {"min_contributions": 3, "max_contributions": 3, "max_share_per_contributor": 0.5},
    {"min_contributions": 1, "deadline_seconds": 600, "keep_contributions": 1},
)


class Killed(BaseException):
    """The process ends here."""


class Life(RuleBasedStateMachine):
    """One model, and all that may happen to it."""

    # A migrated database, to be copied: making one takes longer than an example.
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-", dir=memory()))
        shutil.copytree(self.template, self.folder, dirs_exist_ok=True)
        settings_ = Settings(
            data_dir=self.folder, min_free_bytes=0, part_bytes=64 * 1024, fuse_threads=1
        )
        self.clock = Clock()
        self.ctx = Context(
            settings=settings_,
            database=Database(settings_.database),
            store=LocalStore(self.folder),
            secret=b"a secret of the tests' own",
            signing_key=SIGNING_KEY,
            now=self.clock,
        )
        roles = {**dict.fromkeys(NAMES, Role.CONTRIBUTOR), "max": Role.MAINTAINER}
        self.people = {
            name: authenticate(self.ctx, create_token(self.ctx, name, role, None)[0])
            for name, role in roles.items()
        }
        self.seeds = 0
        self.bodies: dict[str, bytes] = {}

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy: dict[str, Any]) -> None:
        source = tiny_folder(self.folder / "source")
        rules = Policy.model_validate({"screening": ANY_UPDATE, **policy})
        create_model(self.ctx, MODEL, source, "tests", rules, public=True)

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self.ctx.close()
            shutil.rmtree(self.folder)

    @rule(what=st.sampled_from(ACTIONS), data=st.data())
    def step(self, what: str, data: st.DataObject) -> None:
        getattr(self, what)(data)

    # Contributors.

    def declare(self, data: st.DataObject) -> None:
        self._declare(data.draw(PEOPLE), data.draw(st.integers(0, 3)), far=False)

    def complete(self, data: st.DataObject) -> None:
        found = [row.id for row in self._in(_C.DECLARED)]
        if found:
            self._complete(data.draw(st.sampled_from(found)))

    def contribute(self, data: st.DataObject) -> None:
        """Go the whole way at once."""
        made = data.draw(MADE)
        for name, back, far in made:
            declared = self._declare(name, back, far=far)
            if declared is not None:
                self._complete(declared)
        for _ in made:
            screening.screen_next(self.ctx, self._somebody())

    def withdraw(self, data: st.DataObject) -> None:
        found = self._in(_C.DECLARED, _C.COMPLETED, _C.ACCEPTED, _C.SET_ASIDE, _C.FUSED)
        if found:
            row = found[data.draw(st.integers(0, len(found) - 1))]
            owner, erase = self.people[row.contributor.name], data.draw(st.booleans())
            withdrawal.withdraw(self.ctx, row.id, Withdrawal(erase=erase), owner)

    def _declare(self, name: str, back: int, *, far: bool) -> str | None:
        """Announce what was made from a base; of a far one the step is long."""
        self.seeds += 1
        base = max(0, len(self._bases()) - 1 - back)
        raw = file_bytes(body_of(tiny_tensors(), self.seeds, 1.0 if far else 1e-3))
        wanted = Declaration.model_validate(declaration(raw, f"v{base}"))
        key = secrets.token_hex(8)
        try:
            answer, _ = declaring.declare(self.ctx, MODEL, wanted, key, self.people[name], "http:")
        except BaseOutdated:
            return None
        self.bodies[answer.contribution.id] = raw
        return answer.contribution.id

    def _complete(self, contribution: str) -> None:
        # The bytes arrive past the server.
        part = self.ctx.store.open_part(f"{contribution}.0", 1)
        part.write(self.bodies[contribution])
        part.commit()
        owner = next(row for row in self._in() if row.id == contribution).contributor.name
        with suppress(BaseOutdated):
            contributions.complete(self.ctx, contribution, self.people[owner])

    # Schedulers and workers.

    def schedule(self, data: st.DataObject) -> None:
        closing.close_due(self.ctx)
        contributions.expire_uploads(self.ctx)

    def screen(self, data: st.DataObject) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise Killed

        fault = data.draw(st.sampled_from([None, *SCREENING_POINTS]))
        with self._killed(), patched(screening, fault, killed):
            screening.screen_next(self.ctx, self._somebody())

    def work(self, data: st.DataObject) -> None:
        closing.close_due(self.ctx)
        if data.draw(st.booleans()):
            self._close(None)
        fault = data.draw(st.sampled_from([None, None, None, *POINTS, "full", "paused"]))
        # Mostly the lease of one that died has run out by now.
        self.clock.advance(seconds=data.draw(st.sampled_from([40, 40, 0])))
        if fault in POINTS:
            self._die_at(fault)
        elif fault == "paused":
            self._pause_past_the_lease()
        else:
            with patched(publishing, "fuse" if fault == "full" else None, full):
                publishing.go_on_next(self.ctx, self._somebody())

    def _die_at(self, point: str) -> None:
        def killed(_: Settings, name: str) -> None:
            if name == point:
                raise Killed

        with self._killed(), patched(publishing, "fault_point", killed):
            publishing.go_on_next(self.ctx, self._somebody())

    def _pause_past_the_lease(self) -> None:
        """Let another worker do it all meanwhile; then the first one wakes up and goes on."""
        decide = publishing._decide

        def paused(ctx: Context, round_id: int, lease: leases.Lease) -> None:
            if lease.holder == "slow":
                self.clock.advance(seconds=60)
                publishing.go_on_next(ctx, "quick")
            decide(ctx, round_id, lease)

        with patched(publishing, "_decide", paused):
            publishing.go_on_next(self.ctx, "slow")

    # Maintainers.

    def close(self, data: st.DataObject) -> None:
        seconds = data.draw(st.sampled_from([None, None, 60, 4000]))
        self._close(None if seconds is None else self.clock() + timedelta(seconds=seconds))

    def _close(self, at: datetime | None) -> None:
        with suppress(RoundNotClosable, RoundNotFound, StateConflict):
            closing.close_by_hand(self.ctx, MODEL, "open", self.people["max"], at)

    def interfere(self, data: st.DataObject) -> None:
        number = data.draw(st.none() | st.integers(0, len(self._bases()) - 1))
        if number is None:
            newest, reason = str(self._rounds()[-1].number), "nobody wanted it"
            # An open one that has nothing is not cancelled.
            with suppress(StateConflict):
                cancelling.cancel(self.ctx, MODEL, newest, reason, self.people["max"])
        else:
            wanted = RollbackRequest(version=f"v{number}", reason="it was worse")
            rollback.roll_back(self.ctx, MODEL, wanted, self.people["max"])

    def fuse_again(self, data: st.DataObject) -> None:
        aside = self._in(_C.SET_ASIDE)
        if aside:
            mine = [row.id for row in aside if row.round_id == aside[-1].round_id]
            without = data.draw(st.lists(st.sampled_from(mine), unique=True))
            number = next(row.number for row in self._rounds() if row.id == aside[-1].round_id)
            wanted = AgainRequest(without=without)
            again.fuse_again(self.ctx, MODEL, str(number), wanted, self.people["max"])

    # Clocks, which may also be set back.

    def wait(self, data: st.DataObject) -> None:
        self.clock.advance(seconds=data.draw(st.sampled_from([1, 31, 700, 4000, 90_000, -90])))

    # What always holds.

    @invariant()
    def one_round_is_not_over(self) -> None:
        rows = self._rounds()
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        assert all(row.state in ENDS for row in rows[:-1])
        for newest in rows[-1:]:
            assert newest.state not in ENDS
            if newest.state == _R.OPEN:
                assert newest.base_number == self._model().current
            candidates = self._candidates(newest)
            assert bool(candidates) or newest.state != _R.EVALUATING

    @invariant()
    def bases_hang_together(self) -> None:
        bases = self._bases()
        assert [row.number for row in bases] == list(range(len(bases)))
        by_round = {row.number: row for row in self._rounds()}
        for row in bases:
            manifest = Manifest.model_validate_json(row.manifest)
            assert row.digest == hashlib.sha256(row.manifest.encode()).hexdigest()
            assert (manifest.version, manifest.digest()) == (f"v{row.number}", row.digest)
            assert all(self.ctx.store.exists(file.sha256) for file in manifest.files)
            if row.number:
                assert row.parent_number is not None and row.parent_number < row.number
                parent = bases[row.parent_number]
                assert manifest.parent is not None and manifest.parent.digest == parent.digest
                assert manifest.round is not None
                made_by = by_round[manifest.round]
                assert (made_by.state, made_by.result_number) == (_R.PUBLISHED, row.number)
                assert made_by.base_number == row.parent_number
        if bases:
            assert self._model().current < len(bases)

    @invariant()
    def contributions_are_fused_once_or_wait_or_are_told_why_not(self) -> None:
        over = {row.id for row in self._rounds() if row.state in ENDS}
        rejected = {row.id for row in self._rounds() if row.state == _R.REJECTED}
        fused_in = self._fused_in()
        rows = self._in()
        for row in rows:
            if row.state in ending.WAITING:
                assert row.round_id not in over
            elif row.state == _C.FUSED:
                assert f"v{row.result_number}" == fused_in[row.id]
            else:
                assert row.reason
            if row.state == _C.SET_ASIDE:
                assert row.round_id in rejected
            if row.id in fused_in:
                assert row.state in (_C.FUSED, _C.WITHDRAWN)
        accepted = [row for row in rows if row.state == _C.ACCEPTED]
        assert all(row.position is not None for row in accepted)
        assert len({(row.round_id, row.position) for row in accepted}) == len(accepted)

    def _fused_in(self) -> dict[str, str]:
        """Return the base that each fused contribution went into; none went into two."""
        found: dict[str, str] = {}
        for row in self._bases():
            manifest = Manifest.model_validate_json(row.manifest)
            for item in manifest.contributions:
                assert item.id not in found
                found[item.id] = manifest.version
        return found

    def _settle(self) -> None:
        """Let workers and schedulers go on without faults: all that was begun comes to its end."""
        if not self._rounds():
            return
        ctx = self.ctx
        for _ in range(20):
            self.clock.advance(seconds=700)
            while publishing.go_on_next(ctx, "last") or screening.screen_next(ctx, "last"):
                pass
            if self._rounds()[-1].state == _R.OPEN and not self._in(_C.COMPLETED):
                break
        else:
            raise AssertionError("something never comes to its end")
        self.one_round_is_not_over()
        self.bases_hang_together()
        self.contributions_are_fused_once_or_wait_or_are_told_why_not()
        for found in verifying.verify(ctx, MODEL, None, self.people["max"]):
            assert found.faults == []

    # Helpers.

    @contextmanager
    def _killed(self) -> Iterator[None]:
        """Let what dies inside die without giving its leases back."""
        with patched(leases, "release", lambda *_: None), suppress(Killed):
            yield

    def _somebody(self) -> str:
        return secrets.token_hex(4)

    def _read(self, read: Callable[[Session], Any]) -> Any:
        with self.ctx.database.read() as session:
            return read(session)

    def _model(self) -> ModelRow:
        found: ModelRow = self._read(lambda session: session.scalars(select(ModelRow)).one())
        return found

    def _rounds(self) -> list[RoundRow]:
        query = select(RoundRow).order_by(RoundRow.number)
        return list(self._read(lambda session: session.scalars(query).all()))

    def _bases(self) -> list[BaseRow]:
        query = select(BaseRow).order_by(BaseRow.number)
        return list(self._read(lambda session: session.scalars(query).all()))

    def _candidates(self, row: RoundRow) -> list[CandidateRow]:
        query = select(CandidateRow).where(CandidateRow.round_id == row.id, ~CandidateRow.given_up)
        return list(self._read(lambda session: session.scalars(query).all()))

    def _in(self, *states: ContributionState) -> list[ContributionRow]:
        """Return the contributions that are in one of `states`, in any if none is named."""

        def read(session: Session) -> list[ContributionRow]:
            query = select(ContributionRow).order_by(ContributionRow.number)
            found = [row for row in session.scalars(query) if not states or row.state in states]
            for row in found:
                row.contributor.name  # noqa: B018 - read while the session is there
            return found

        return list(self._read(read))


@contextmanager
def patched(module: Any, name: str | None, stand_in: Any) -> Iterator[None]:
    """Put a stand-in into a module; without a name, none."""
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            patch.setattr(module, name, stand_in)
        yield


def full(*_: Any) -> None:
    raise StorageFull("The disk is full, says the test.")


def test_whatever_happens_in_whatever_order_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    template = tmp_path_factory.mktemp("template") / "data"
    with repository(template):
        pass
    machine = type("Life", (Life,), {"template": template})
    # An example is a whole history, and costs more than a value does.
    wanted = settings(max_examples=settings().max_examples // 6, stateful_step_count=STEPS)
    run_state_machine_as_test(machine, settings=wanted)
