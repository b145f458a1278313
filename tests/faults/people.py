"""Contributors who go on whatever fails under them, and remember what they were told."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from threading import Event, Thread
from typing import Any

import httpx

from tests.faults.fleet import Fleet
from tests.server.repository import body_file, declaration

# How long a Repository may be away at a stretch.
PATIENCE_SECONDS = 300
PAUSE_SECONDS = 0.1
# Made from so many bases before the newest one.
BEHIND = (0, 0, 0, 0, 1, 1, 2, 3)
# Of what is taken back, the share whose bytes are to go at once.
ERASED = 0.3
UNDECIDED = ("declared", "completed")


class Contributor:
    """
    Sends one contribution after the other, by the protocol alone, and takes some of them back.

    Attributes:
        told: ids of what the Repository has taken, in order.
        refused: how many it would not take, since they were too late.
    """

    def __init__(self, fleet: Fleet, name: str, seed: int, withdraws: float = 0.0) -> None:
        """
        Begin with nothing sent.

        Args:
            fleet: the Repository.
            name: whose token is used.
            seed: of all that is drawn.
            withdraws: share of the contributions that are taken back, some of them when fused.
        """
        self.fleet, self.name, self.withdraws = fleet, name, withdraws
        self.random = Random(f"{seed} {name}")
        self.told: list[str] = []
        self.refused = 0
        headers = {"Authorization": f"Bearer {fleet.tokens[name]}"}
        self.http = httpx.Client(
            base_url=f"{fleet.url}/v1", headers=headers, trust_env=False, timeout=120
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def contribute(self) -> None:
        """Go the whole way until it is decided."""
        raw = body_file(self.random.getrandbits(32))
        identity = self._declared(raw)
        if identity is None:
            self.refused += 1
            return
        self.told.append(identity)
        if self._sent(identity, raw):
            self._wait_until_decided(identity)
        if self.random.random() < self.withdraws:
            self.withdraw(self.random.choice(self.told[-4:]))

    def withdraw(self, identity: str) -> None:
        """Take it back, unless it was rejected meanwhile."""
        wanted = {"erase": self.random.random() < ERASED}
        answer = self._ask("POST", f"/contributions/{identity}/withdraw", json=wanted)
        if answer.status_code != 200:
            assert answer.json()["code"] == "state_conflict", answer.text

    def _declared(self, raw: bytes) -> str | None:
        head = int(self._ask("GET", self.fleet.model()).json()["current"][1:])
        base = max(0, head - self.random.choice(BEHIND))
        answer = self._ask(
            "POST",
            self.fleet.model("/contributions"),
            json=declaration(raw, f"v{base}"),
            # The same one whenever it has to be asked again.
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )
        if answer.status_code == 409:
            assert answer.json()["code"] == "base_outdated", answer.text
            return None
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["contribution"]["id"])

    def _sent(self, identity: str, raw: bytes) -> bool:
        """Send what has not arrived until it has; return false where nobody wants it any more."""
        path, until = f"/contributions/{identity}", time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            (file,) = self._ask("GET", f"{path}/upload").raise_for_status().json()["files"]
            for part in file["parts"]:
                if part["url"] is not None:
                    # What does not arrive is in the next plan again.
                    with suppress(httpx.TransportError):
                        httpx.put(part["url"], content=raw, trust_env=False, timeout=120)
            answer = self._ask("POST", f"{path}/complete")
            if answer.status_code == 200:
                return True
            code = answer.json()["code"]
            if code == "base_outdated":
                return False
            assert code == "upload_incomplete", answer.text
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"{identity} was never sent")

    def _wait_until_decided(self, identity: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            answer = self._ask("GET", f"/contributions/{identity}").raise_for_status()
            if answer.json()["state"] not in UNDECIDED:
                return
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"{identity} was never screened")

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask until there is an answer; only an outage is one that is not taken."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                answer = self.http.request(method, path, **more)
                if answer.status_code != 503:
                    assert answer.status_code < 500, answer.text
                    return answer
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"{method} {path} was never answered")


class Crowd:
    """Contributors at work, each in a thread of its own, until told to stop."""

    def __init__(self, people: list[Contributor]) -> None:
        self.people, self.faults = people, list[BaseException]()
        self._over = Event()
        self._threads = [Thread(target=self._run, args=(one,), daemon=True) for one in people]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def finish(self, meanwhile: Callable[[], None]) -> None:
        """Let each come to the end of what is begun; call `meanwhile` until all have."""
        self._over.set()
        while any(thread.is_alive() for thread in self._threads):
            meanwhile()
            time.sleep(PAUSE_SECONDS)

    def check(self) -> None:
        """Raise what has gone wrong for one of them."""
        if self.faults:
            raise self.faults[0]

    def _run(self, one: Contributor) -> None:
        try:
            while not self._over.is_set() and not self.faults:
                one.contribute()
        except BaseException as error:
            self.faults.append(error)
