"""The store is gone for half a minute while everything is under way."""

from __future__ import annotations

import json
import time

import httpx

from tests.faults.models import finetuned
from tests.faults.stage import MIB, MODEL, Stage, clean_end, program, wait_for
from tests.s3.rgw import S3Server

GONE_SECONDS = 30


def test_all_goes_on_when_the_store_comes_back(on_ceph: Stage, ceph_server: S3Server) -> None:
    on, gateway = on_ceph, ceph_server.gateway
    assert on.back
    # A second model, whose first contribution is fused at once.
    on.server.command(
        "model",
        "create",
        "lab/quick",
        "--from",
        str(on.base),
        "--min-contributions",
        "1",
        "--public",
    )
    quick = finetuned(on.base, on.folder / "quick", 9)
    client = on.client()
    clean_end(client.run("push", "lab/quick", str(quick), "--base", "v0", "--no-wait"))
    on.back.sent.allow(17 * MIB)
    wait_for(on.back.sent.closed.is_set, "the fuse")

    # Another one is screened, by another worker.
    with program(on.server, on.folder / "worker.log", "worker"):
        on.back.answers.allow(9 * MIB)
        screened = client.start("push", MODEL, str(on.finetuned()), "--base", "v0", "--json")
        wait_for(on.back.answers.closed.is_set, "the screening")
        # And two clients are in the middle of their transfers.
        on.wire.sent.allow(9 * MIB)
        uploading = client.start("push", MODEL, str(on.finetuned()), "--base", "v0", "--json")
        on.wire.answers.allow(9 * MIB)
        downloading = on.client().start("pull", MODEL, "--out", "base", "--json")
        wait_for(on.wire.sent.closed.is_set, "the upload")
        wait_for(on.wire.answers.closed.is_set, "the download")

        gateway.kill()
        gone_at = time.monotonic()
        for each in (on.wire, on.back):
            each.drop()
            each.sent.allow(None)
            each.answers.allow(None)
        try:
            _check_answers(on)
            time.sleep(max(0.0, gone_at + GONE_SECONDS - time.monotonic()))
        finally:
            # All other tests need it, too.
            gateway.start()

        for process in (screened, uploading):
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors
            on.accepted(json.loads(out)["id"])
        _, errors = downloading.communicate(timeout=300)
        assert downloading.returncode == 0, errors
        wait_for(lambda: on.server.get("/models/lab/quick")["current"] == "v1", "v1")
    assert on.ask("GET", "/readyz").status_code == 200
    assert "Traceback" not in on.log


def _check_answers(on: Stage) -> None:
    """What needs no store is answered as ever; the rest says in time what is wrong."""
    assert on.ask("GET", "/v1/whoami").status_code == 200
    assert on.ask("GET", f"/v1/models/{MODEL}").status_code == 200
    _check_refusal(on.declare())
    assert on.ask("GET", f"/v1/models/{MODEL}/contributions").status_code in (200, 503)
    ready = on.ask("GET", "/readyz")
    assert ready.status_code in (200, 503), ready.text


def _check_refusal(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    problem = answer.json()
    assert problem["code"] == "storage_unavailable" and "bucket" in problem["detail"], problem
    assert "Retry-After" in answer.headers
