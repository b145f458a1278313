"""How often an address and a token may ask, and who guesses at tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldfusion_server.api.buckets import MOST_KEYS, Buckets
from coldfusion_server.api.guessing import FORGET_SECONDS, LONGEST_SECONDS, Guesses, Tried
from coldfusion_shared.errors import Forbidden, RateLimited, TokenExpired, Unauthenticated
from tests.server.asgi import Answer, request
from tests.server.repository import Repository, body_file, repository

ONE, OTHER = "192.0.2.1", "192.0.2.2"


class Time:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Buckets.


def test_a_bucket_gives_all_at_once_and_fills_up_in_a_minute() -> None:
    time = Time()
    buckets = Buckets(6, time)
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 6
    assert buckets.take("a") == pytest.approx(10)
    assert buckets.take("b") == 0.0
    time.now += 9.9
    assert 0 < buckets.take("a") <= 0.11
    time.now += 0.11
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 9
    time.now += 60
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 6


def test_who_waits_as_long_as_he_is_told_gets_his_turn_at_any_rate() -> None:
    for size in (1, 7, 1200, 3000):
        time = Time()
        buckets = Buckets(size, time)
        taken = sum(buckets.take("a") == 0.0 for _ in range(size))
        assert taken == size
        for _ in range(50):
            time.now += buckets.take("a")
            assert buckets.take("a") == 0.0


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_no_span_of_time_lets_more_pass_than_it_should(size: int, pauses: list[float]) -> None:
    time = Time()
    buckets = Buckets(size, time)
    passed: list[float] = []
    for pause in pauses:
        time.now += pause
        if buckets.take("a") == 0.0:
            passed.append(time.now)
    for first, begun in enumerate(passed):
        for last in range(first, len(passed)):
            most = size + (passed[last] - begun) * size / 60
            assert last - first + 1 <= most + 1e-3


def test_full_buckets_are_forgotten_and_their_number_is_bounded() -> None:
    time = Time()
    buckets = Buckets(60, time)
    for number in range(MOST_KEYS + 10):
        buckets.take(str(number))
    assert len(buckets) == MOST_KEYS
    time.now += 61
    buckets.take("late")
    assert len(buckets) == 1


def test_no_limit_counts_nothing() -> None:
    buckets = Buckets(0, Time())
    assert [buckets.take("a") for _ in range(100)] == [0.0] * 100
    assert len(buckets) == 0


# Guesses.


def tried(guesses: Guesses, address: str, subject: str | None, *, right: bool = False) -> Any:
    """Try once; return "right", "wrong" or the seconds to wait."""

    def look() -> str:
        if not right:
            raise Unauthenticated("No.")
        return "right"

    try:
        digest = "good" if right else "bad"
        return guesses.watch(Tried(address, subject, digest), look, Unauthenticated)
    except Unauthenticated:
        return "wrong"
    except RateLimited as error:
        return error.retry_after


def test_wrong_ones_wait_longer_each_time_and_a_minute_at_most() -> None:
    time = Time()
    guesses = Guesses(3, time)
    assert [tried(guesses, ONE, None) for _ in range(3)] == ["wrong"] * 3
    waits = []
    for _ in range(9):
        wait = tried(guesses, ONE, None)
        assert tried(guesses, ONE, None) == wait, "a refused try makes it no longer"
        waits.append(wait)
        time.now += wait
        assert tried(guesses, ONE, None) == "wrong"
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(waits) == LONGEST_SECONDS
    assert tried(guesses, OTHER, None) == "wrong"
    time.now += FORGET_SECONDS + 61
    assert [tried(guesses, ONE, None) for _ in range(2)] == ["wrong"] * 2
    assert tried(guesses, ONE, None) == "wrong", "after a quarter of an hour it begins anew"


def test_who_shares_an_address_with_one_who_guesses_is_let_in() -> None:
    guesses = Guesses(2, Time())
    assert [tried(guesses, ONE, None) for _ in range(2)] == ["wrong"] * 2
    # Those who were never here before, too: this process may have begun a minute ago.
    assert [tried(guesses, ONE, name, right=True) for name in ("ann", "bob")] == ["right"] * 2


def test_while_an_address_waits_no_token_is_guessed_at_twice() -> None:
    time = Time()
    guesses = Guesses(2, time)
    assert [tried(guesses, ONE, None) for _ in range(2)] == ["wrong"] * 2
    looked: list[str] = []

    def look() -> None:
        looked.append("")
        raise Unauthenticated("No.")

    for _ in range(9):
        for subject in ("ann", "bob", None):
            with pytest.raises(RateLimited):
                guesses.watch(Tried(ONE, subject, "bad"), look, Unauthenticated)
    assert len(looked) == 2
    # They have not made the wait longer.
    time.now += 1
    assert tried(guesses, ONE, "ann", right=True) == "right"


def test_a_token_that_many_guess_at_is_watched_and_its_holder_goes_on() -> None:
    guesses = Guesses(3, Time())
    assert tried(guesses, ONE, "ann", right=True) == "right"
    for number in range(3):
        assert tried(guesses, f"198.51.100.{number}", "ann") == "wrong"
    assert tried(guesses, "198.51.100.99", "ann") == 1
    for address in (ONE, OTHER, "198.51.100.99"):
        assert tried(guesses, address, "ann", right=True) == "right"


def test_what_is_no_guess_is_not_counted() -> None:
    guesses = Guesses(1, Time())
    for kind in (TokenExpired, Forbidden):

        def look(kind: type[Exception] = kind) -> None:
            raise kind("Not this time.")

        for _ in range(5):
            with pytest.raises(kind):
                guesses.watch(Tried(ONE, "ann", "good"), look, Unauthenticated)


# Through the application.


def limited(tmp_path: Path, **settings: Any) -> Any:
    """Open a Repository whose limits see no time pass."""
    return repository(tmp_path / "data", seconds=Time(), **settings)


def asked(repo: Repository, token: str | None, address: str, path: str = "/v1") -> Answer:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return request(repo.app, "GET", path, headers, address=address)


def test_an_address_and_a_token_have_so_many_requests_a_minute(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_address=5, rate_per_token=3) as repo:
        token = repo.token()
        assert [asked(repo, None, ONE).status for _ in range(5)] == [200] * 5
        refused = asked(repo, None, ONE)
        assert (refused.status, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) == refused.json()["retry_after"] >= 1
        assert refused.json()["hint"]
        assert asked(repo, None, "::ffff:192.0.2.1").status == 429
        assert asked(repo, None, OTHER).status == 200
        # The token's own limit holds wherever it comes from.
        seen = [asked(repo, token, f"192.0.2.{number}").status for number in range(3, 7)]
        assert seen == [200, 200, 200, 429]
        assert asked(repo, repo.token("bob"), "192.0.2.9").status == 200
        # An IPv6 network is one address, whatever its machines call themselves.
        seen = [asked(repo, None, f"2001:db8::{number}").status for number in range(6)]
        assert seen == [200] * 5 + [429]
        assert asked(repo, None, "2001:db8:0:1::1").status == 200


def test_parts_of_uploads_and_signs_of_life_are_not_counted(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_address=12, rate_per_token=12) as repo:
        repo.model()
        for _ in range(40):
            assert asked(repo, None, "testclient", "/healthz").status == 200
        put = request(repo.app, "PUT", "/v1/uploads/x.0/1", address="testclient")
        assert put.status == 403
        ann = repo.contributor()
        for seed in range(5):
            contribution = ann.sent(body_file(seed))
            assert ann.complete(contribution).status_code == 200
        # Ten requests of the API, and the parts beside.
        assert [asked(repo, None, "testclient").status for _ in range(3)] == [200, 200, 429]


def test_of_many_wrong_tokens_few_are_looked_at_and_good_ones_work_elsewhere(
    tmp_path: Path,
) -> None:
    with limited(tmp_path) as repo:
        token = repo.token()
        key = token.split("_")[1]
        assert asked(repo, token, ONE).status == 200
        answers = [asked(repo, f"cf_{key}_{'A' * 40}{n:03}", ONE) for n in range(300)]
        statuses = [answer.status for answer in answers]
        assert statuses[:10] == [401] * 10
        assert statuses[10:] == [429] * 290
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= LONGEST_SECONDS
        assert asked(repo, token, ONE).status == 200
        # Nor does anybody else wait, at that address or where the holder comes from next.
        assert asked(repo, repo.token("bob"), ONE).status == 200
        assert asked(repo, token, OTHER).status == 200
        # The form of the dashboard counts with it.
        form = [b"token=wrong&next=/"]
        shown = request(repo.app, "POST", "/login", [], form, address=ONE)
        assert shown.status == 429 and int(shown.headers["retry-after"]) >= 1


def test_codes_of_invitations_are_guessed_no_faster(tmp_path: Path) -> None:
    with limited(tmp_path, wrong_tokens=4) as repo:
        headers = [(b"content-type", b"application/json"), (b"idempotency-key", b"x" * 16)]

        def tries(number: int) -> int:
            body = f'{{"code": "cfi_{number:016x}_{"A" * 22}", "name": "eve"}}'.encode()
            return request(repo.app, "POST", "/v1/join", headers, [body], address=ONE).status

        assert [tries(number) for number in range(20)] == [403] * 4 + [429] * 16


def test_tokens_are_not_tried_where_nothing_is_counted(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_address=5, wrong_tokens=0) as repo:
        wrong = [asked(repo, f"cf_{n:016}_{'A' * 43}", ONE, "/healthz").status for n in range(7)]
        assert wrong == [401] * 5 + [429] * 2
        assert asked(repo, None, ONE, "/healthz").status == 200
