"""Kills processes of a Repository at random moments, and takes its database or store away."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from random import Random

from tests.faults.fleet import LEASE_SECONDS, Fleet
from tests.faults.processes import Program
from tests.s3.rgw import Gateway
from tests.server.postgres import PostgresServer

# What is without, for as long as the block lasts.
Outage = Callable[[], AbstractContextManager[None]]

AWAY_SECONDS = 1.0
# At one in so many kills the database or the store is away; and a worker is paused before.
OUTAGES = 5
PAST_LEASE_SECONDS = LEASE_SECONDS + 0.3
# So many events pass between two kills at most; a round of two contributions has a dozen.
MOST_EVENTS = 14
# So long is waited for them: a Repository that lies still is no reason to kill nobody.
STILL_SECONDS = 60.0
# So long a worker is waited for that has nothing to do, and so long it works before it is killed.
IDLE_SECONDS = 1.0
WORK_SECONDS = 0.05


class Killer:
    """
    Kills one process after the other; what died is started again and else left to itself.

    Attributes:
        kills: how many, by what was killed.
        others: what else was done, by its name.
    """

    def __init__(self, fleet: Fleet, seed: int, outages: Sequence[tuple[str, Outage]] = ()) -> None:
        """Kill in `fleet`, as `seed` decides; `outages` have names."""
        self.fleet, self.random, self.outages = fleet, Random(seed), list(outages)
        self.kills, self.others = Counter[str](), Counter[str]()
        self._seen = 0

    def run(self, kills: int) -> None:
        """Kill so many processes; all of them run again afterwards."""
        for number in range(1, kills + 1):
            self._let_happen(self.random.randint(0, MOST_EVENTS))
            if number % OUTAGES == 0:
                self._pause()
            with self._outage() if self.outages and number % OUTAGES == 0 else nullcontext():
                self._kill()
                self.fleet.mend()

    def _let_happen(self, count: int) -> None:
        """Wait for so many events: however slow the machine is, work goes on between kills."""
        fleet, until = self.fleet, time.monotonic() + STILL_SECONDS
        fleet.recover()
        while count > 0 and time.monotonic() < until:
            happened = fleet.get("/events", after=self._seen, limit=count)
            self._seen = happened[-1]["id"] if happened else self._seen
            count -= len(happened)
            fleet.mend()
            time.sleep(0.02)

    def _kill(self) -> None:
        """Workers have most to lose."""
        fleet = self.fleet
        victim = self.random.choice([fleet.api, fleet.scheduler, *fleet.workers, *fleet.workers])
        if victim in fleet.workers:
            self._await_work(victim)
        victim.kill()
        self.kills[victim.name.split("-")[0]] += 1
        self.others["workers killed at work"] += victim in fleet.workers and fleet.works(victim)
        # Sometimes others have its work to themselves for a while.
        time.sleep(self.random.choice([0, 0, PAST_LEASE_SECONDS]))

    def _await_work(self, worker: Program) -> None:
        """Wait until it has something in hand, and a little longer."""
        until = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < until and not self.fleet.works(worker):
            time.sleep(0.002)
        time.sleep(self.random.uniform(0, WORK_SECONDS))

    def _pause(self) -> None:
        """What a worker holds is taken over, and then it goes on as if nothing had been."""
        self.others["workers paused"] += 1
        self.random.choice(self.fleet.workers).pause(PAST_LEASE_SECONDS)

    @contextmanager
    def _outage(self) -> Iterator[None]:
        """Somebody dies, and is started again, while the database or the store is away."""
        name, outage = self.random.choice(self.outages)
        self.others[name] += 1
        with outage():
            yield
            time.sleep(AWAY_SECONDS)


def without(server: PostgresServer | Gateway) -> Outage:
    """Return how a server is away: it dies, nobody listens, and it comes back after a while."""

    @contextmanager
    def away() -> Iterator[None]:
        server.kill()
        try:
            yield
        finally:
            server.start()

    return away


def with_silent_store(gateway: Gateway) -> Outage:
    """Return how the store hangs: connections are taken, and nothing is answered."""

    @contextmanager
    def silent() -> Iterator[None]:
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            gateway.process.send_signal(signal.SIGCONT)

    return silent
