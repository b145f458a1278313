"""Everything between a client and the store goes wrong: cuts, refusals, redirects, damage."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from coldfusion_client.cli.errors import DISK, exit_code
from coldfusion_shared.weights.digests import file_sha256
from tests.faults.proxy import SLOW_DOWN, Asked, Fault, Proxy, Rule, proxy
from tests.faults.stage import MIB, MODEL, Stage, clean_end, wait_for

UNAVAILABLE = "<Error><Code>InternalError</Code><Message>We failed.</Message></Error>"
Faults = Callable[[str], list[Fault]]


@pytest.fixture
def elsewhere(on: Stage) -> Iterator[Proxy]:
    """Another address of the same store, to be redirected to."""
    host, port = on.wire.upstreams[0]
    with proxy(f"http://{host}:{port}", host=urlsplit(on.wire.url).netloc) as other:
        yield other


def broken(url: str) -> list[Fault]:
    return [
        Fault(cut_sent=0, cut_answer=0),
        Fault(cut_sent=100_000, cut_answer=100, reset=True),
        Fault(cut_sent=3 * MIB, cut_answer=3 * MIB),
        Fault(cut_answer=0),
        Fault(cut_sent=5 * MIB - 1, cut_answer=16 * MIB - 1, reset=True),
    ]


def refused(url: str) -> list[Fault]:
    return [
        Fault(500, text=UNAVAILABLE),
        Fault(503, {"Retry-After": "1", "Content-Type": "application/xml"}, SLOW_DOWN),
        Fault(503, {"Retry-After": "1"}, SLOW_DOWN, early=True),
        Fault(502, text="<html>Bad gateway</html>"),
        Fault(400, text="<Error><Code>RequestTimeout</Code><Message>Slow.</Message></Error>"),
    ]


def damaged(url: str) -> list[Fault]:
    return [
        Fault(garble_sent=1 * MIB),
        Fault(garble_sent=0),
        Fault(garble_answer=50),
        Fault(shorten=50, delay=0.5),
        Fault(shorten=0),
        Fault(delay=1),
    ]


def redirected(url: str) -> list[Fault]:
    return [Fault(307, {"Location": url}), Fault(307, {"Location": url}, early=True)]


def some(faults: list[Fault], chosen: Callable[[Asked], bool]) -> Rule:
    """Every second one of the chosen requests fails, in a way that a generator chooses."""
    chance, left = random.Random(4), faults * 2
    chance.shuffle(left)

    def rule(asked: Asked) -> Fault | None:
        if not chosen(asked) or asked.number % 2 or not left:
            return None
        fault = left.pop()
        if "Location" in fault.headers:
            return Fault(
                fault.status, {"Location": fault.headers["Location"] + asked.target},
                early=fault.early,
            )  # fmt: skip
        return fault

    return rule


def is_part(asked: Asked) -> bool:
    return asked.method == "PUT"


def is_file(asked: Asked) -> bool:
    return asked.method == "GET" and ("/files/" in asked.target or "/objects/" in asked.target)


@pytest.mark.parametrize("faults", [broken, refused, damaged, redirected])
def test_an_upload_arrives_all_the_same(on: Stage, elsewhere: Proxy, faults: Faults) -> None:
    model, client = on.finetuned(), on.client()
    on.wire.rule = some(faults(elsewhere.url), is_part)
    done = client.run("push", MODEL, str(model), "--base", "v0", "--json")
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
    # Nothing but what was broken is sent again.
    assert len([asked for asked in on.wire.asked if is_part(asked)]) <= 5 + 2 * len(faults(""))


@pytest.mark.parametrize("faults", [broken, refused, damaged, redirected])
def test_a_download_arrives_all_the_same(on: Stage, elsewhere: Proxy, faults: Faults) -> None:
    client = on.client()
    on.wire.rule = some(faults(elsewhere.url), is_file)
    clean_end(client.run("pull", MODEL, "--out", "base"))
    for name in ("model.safetensors", "config.json"):
        assert file_sha256(client.home / "base" / name) == file_sha256(on.base / name)


def always(fault: Fault, chosen: Callable[[Asked], bool]) -> Rule:
    return lambda asked: fault if chosen(asked) else None


DENIED = "<Error><Code>AccessDenied</Code></Error>"
NO_ROOM = "<Error><Code>QuotaExceeded</Code><Message>No room</Message></Error>"
SKEWED = "<Error><Code>RequestTimeTooSkewed</Code><Message>Too skewed.</Message></Error>"


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        (Fault(403, text=DENIED), exit_code("upload_refused"), "AccessDenied"),
        (Fault(403, text=NO_ROOM), DISK, "no room"),
        (Fault(403, text=SKEWED), exit_code("storage_unavailable"), "clock"),
        (Fault(503, {"Retry-After": "200"}, SLOW_DOWN), exit_code("storage_unavailable"), "SlowDo"),
    ],
)
def test_an_upload_that_cannot_arrive_says_so_and_goes_on_later(
    on_ceph: Stage, fault: Fault, code: int, word: str
) -> None:
    on, model = on_ceph, on_ceph.finetuned()
    client = on.client()
    on.wire.rule = always(fault, is_part)
    push = ("push", MODEL, str(model), "--base", "v0", "--json")
    said = clean_end(client.run(*push), code)
    assert word in said
    on.heal()
    done = client.run(*push)
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        (Fault(403, text=DENIED), exit_code("storage_unavailable"), "AccessDenied"),
        (Fault(garble_answer=9), exit_code("digest_mismatch"), "manifest"),
    ],
)
def test_a_download_that_cannot_arrive_says_so(
    on_ceph: Stage, fault: Fault, code: int, word: str
) -> None:
    client = on_ceph.client()
    on_ceph.wire.rule = always(fault, is_file)
    assert word in clean_end(client.run("pull", MODEL, "--out", "base"), code)
    assert not (client.home / "base").exists()
    assert len(on_ceph.wire.asked) < 60


def test_answers_of_the_api_are_lost_on_the_way(on_disk: Stage) -> None:
    on, model = on_disk, on_disk.finetuned()
    client, seen = on.client(), set()

    def lost_once(asked: Asked) -> Fault | None:
        what = asked.method, asked.target.split("?")[0]
        if what in seen:
            return None
        seen.add(what)
        return Fault(cut_answer=0)

    on.wire.rule = lost_once
    done = client.run("push", MODEL, str(model), "--base", "v0", "--json")
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
    assert len(seen) > 10


def worker_faults(seed: int) -> Rule:
    """A third of the first 60 requests to the bucket fails."""
    chance = random.Random(seed)
    kinds = [*broken(""), *refused("")]

    def rule(asked: Asked) -> Fault | None:
        if asked.number > 60 or chance.random() > 1 / 3:
            return None
        return chance.choice(kinds)

    return rule


def test_the_way_between_server_and_bucket_is_bad(on_ceph: Stage) -> None:
    on, model = on_ceph, on_ceph.finetuned()
    client = on.client()
    assert on.back
    on.back.rule = worker_faults(1)
    done = client.run("push", MODEL, str(model), "--base", "v0", "--json")
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])
    assert "Traceback" not in on.log


def test_a_byte_that_changes_between_bucket_and_server_is_noticed(on_ceph: Stage) -> None:
    on, model = on_ceph, on_ceph.finetuned()
    client = on.client()
    assert on.back
    left = [Fault(garble_answer=4 * MIB)]

    def rule(asked: Asked) -> Fault | None:
        read = asked.method == "GET" and "/uploads/" in asked.target and "range" in asked.headers
        return left.pop() if read and left else None

    on.back.rule = rule
    push = ("push", MODEL, str(model), "--base", "v0", "--json")
    said = clean_end(client.run(*push), exit_code("contribution_rejected"))
    assert not left
    assert "again" in said
    done = client.run(*push)
    clean_end(done)
    on.accepted(json.loads(done.stdout)["id"])


def test_a_bucket_that_moves_is_named(on_ceph: Stage) -> None:
    on = on_ceph
    assert on.back
    model, client = on.finetuned(), on.client()
    moved = {"Location": "http://127.0.0.1:1/"}
    text = "<Error><Code>TemporaryRedirect</Code><Message>Elsewhere.</Message></Error>"
    refused = on.log.count("status=503")
    on.back.rule = lambda asked: Fault(307, moved, text)
    process = client.start("push", MODEL, str(model), "--base", "v0", "--json")
    wait_for(
        lambda: on.log.count("status=503") > refused or process.poll() is not None, "a refusal"
    )
    assert process.poll() is None, process.communicate()
    on.heal()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    on.accepted(json.loads(out)["id"])
