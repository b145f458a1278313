"""Pushing by the requests themselves: what is taken, what is refused, and how it is said."""

from __future__ import annotations

import base64
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from coldfusion_server.services import staging
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.garbage import collect
from tests.hub.pusher import WEIGHTS, Pusher, digest, lines, weights
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, body_file, repository
from tests.server.test_encodings import adapter

# Nothing here depends on the database; see tests/server/test_pushes.py for what does.
pytestmark = only_sqlite

RAW = body_file(1)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A Repository with the tiny model."""
    with repository(tmp_path / "data") as opened:
        opened.model(min_contributions=100)
        yield opened


@pytest.fixture
def ann(repo: Repository) -> Pusher:
    return Pusher(repo)


def said(answer: Any, status: int, *words: str) -> None:
    """Check that something was refused, by a sentence with these words."""
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert answer.headers["x-error-message"] in told
    for word in words:
        assert word in told, told


def fuse(repo: Repository) -> None:
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()


def archive() -> bytes:
    """Return what torch.save writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2))
    return file.getvalue()


def test_a_push_is_a_contribution_like_any_other(repo: Repository, ann: Pusher) -> None:
    ann.send(RAW)
    answer = ann.commit(weights(), description="By hand")
    # Clients print it.
    warning = answer.headers["x-hf-warning"]
    assert "It goes into round 1." in warning
    assert warning.endswith(f"Follow it at {answer.json()['pullRequestUrl']}")
    number = 1
    (made,) = ann.contributions()
    assert (made["state"], made["encoding"], made["base"]) == ("completed", "full", "v0")
    assert made["work"]["settings"] == {"pull request": number, "title": "Mine"}
    assert made["work"]["client"].endswith("through the hub door")
    shown = ann.details(number)
    assert (shown["status"], shown["author"], shown["title"]) == ("open", {"name": "ann"}, "Mine")
    assert shown["events"][0]["data"]["latest"]["raw"] == "By hand"
    assert f"+oid sha256:{digest(RAW)}" in shown["diff"]
    assert "waits for its screening" in ann.verdict(number)
    fuse(repo)
    assert ann.contributions()[0]["result"] == "v1"
    assert ann.details(number)["status"] == "merged"
    assert "fused in round 1 into v1, with the weight 1" in ann.verdict(number)
    assert repo.ctx.store.pending_uploads() == []


def test_events_and_audit_tell_of_it_as_of_any_other(repo: Repository, ann: Pusher) -> None:
    ann.push(weights())
    repo.work()
    told = [event["type"] for event in repo.get(f"/v1/events?model={MODEL}")]
    assert [name for name in told if name.startswith("contribution.")] == [
        "contribution.declared", "contribution.completed", "contribution.accepted",
    ]  # fmt: skip


def test_an_adapter_comes_in_two_commits_and_is_one_contribution(
    repo: Repository, ann: Pusher
) -> None:
    opened = ann.post(
        f"/api/models/{MODEL}/discussions",
        json={"title": "An adapter", "description": "mine", "pullRequest": True},
    )
    number = opened.json()["num"]
    mine = f"/api/models/{MODEL}/discussions/{number}"
    draft = ann.client.get(mine).json()
    assert draft["status"] == "draft" and draft["isPullRequest"]
    # Nobody else is told of a draft.
    assert repo.client(repo.token("bob")).get(mine).status_code == 404
    files = adapter()
    ann.send(*files.values())
    for path, raw in files.items():
        assert ann.contributions() == []
        done = ann.commit({path: raw}, f"refs/pr/{number}", query="")
        assert done.status_code == 200 and "pullRequestUrl" not in done.json()
    (made,) = ann.contributions()
    assert made["encoding"] == "lora" and len(made["files"]) == 2
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"


def test_settings_may_come_inside_of_the_commit(repo: Repository, ann: Pusher) -> None:
    files = adapter()
    names = sorted(files)
    ann.send(files[names[1]])
    inline = {names[0]: files[names[0]], "README.md": b"# mine"}
    assert ann.commit({names[1]: files[names[1]]}, inline=inline).status_code == 200
    repo.work()
    (made,) = ann.contributions()
    assert (made["state"], len(made["files"])) == ("accepted", 2)


def test_half_an_adapter_is_refused_where_nothing_more_will_come(ann: Pusher) -> None:
    files = {path: raw for path, raw in adapter().items() if path.endswith(".safetensors")}
    ann.send(*files.values())
    said(ann.commit(files), 400, "adapter_config.json is missing")
    assert ann.client.get(f"/api/models/{MODEL}/discussions").json()["count"] == 0


def test_what_is_of_no_use_is_left_out_and_the_weights_are_sent(ann: Pusher) -> None:
    left = (
        "config.json",
        "tokenizer.json",
        "README.md",
        ".gitattributes",
        "generation_config.json",
    )
    answer = ann.preupload({**weights(), **dict.fromkeys(left, b"{}")})
    told = {file["path"]: file for file in answer.json()["files"]}
    assert [name for name in told if not told[name]["shouldIgnore"]] == [WEIGHTS]
    assert told[WEIGHTS]["uploadMode"] == "lfs"
    base = ann.repo.get(f"/v1/models/{MODEL}/bases/v0")["manifest"]["files"]
    digests = {file["path"]: file["sha256"] for file in base}
    # Clients compare it with what they would send, and send nothing that is the same.
    assert told[WEIGHTS]["oid"] == digests[WEIGHTS]


@pytest.mark.parametrize(
    ("path", "raw", "words"),
    [
        ("pytorch_model.bin", b"anything", ("pickle", "safe_serialization")),
        ("training_args.bin", b"x", ("pickle", "--exclude")),
        ("sub/optimizer.pt", b"x", ("pickle",)),
        (WEIGHTS, archive(), ("pickle",)),
        (WEIGHTS, pickle.dumps({"a": 1}), ("pickle",)),
        (WEIGHTS, b"no safetensors at all", ("does not begin as safetensors",)),
        (WEIGHTS, (2**40).to_bytes(8, "little") + b'{"a":1}', ("does not begin",)),
        ("model-00001-of-00002.safetensors", RAW, ("max_shard_size",)),
        ("model.safetensors.index.json", b"{}", ("max_shard_size",)),
        ("checkpoint-10/model.safetensors", RAW, ("top of the repository",)),
        ("other.safetensors", RAW, ("model.safetensors or adapter_model",)),
        ("modeling_mine.py", b"import os", ("is not taken", "--exclude")),
        ("../../etc/passwd", b"x", ("is not taken",)),
        ("a\0b\n\x1b[31m", b"x", ("is not taken",)),
    ],
)
def test_what_is_no_part_of_a_contribution_is_refused_before_it_is_sent(
    ann: Pusher, path: str, raw: bytes, words: tuple[str, ...]
) -> None:
    said(ann.preupload({**weights(), path: raw} if path != WEIGHTS else {path: raw}), 400, *words)
    if path != WEIGHTS:
        # Who does not ask before is refused then.
        said(ann.commit({path: raw}), 400, *words)


def test_all_that_is_refused_is_named_at_once(ann: Pusher) -> None:
    wrong = dict.fromkeys(
        ("training_args.bin", "a.py", "\nb", *(f"{n}.log" for n in range(4))), b"x"
    )
    words = ("training_args.bin", "'a.py', '\\nb'", "'2.log' and 1 more")
    said(ann.preupload({**weights(), **wrong}), 400, "pickle", *words)
    said(ann.commit({**weights(), **wrong}), 400, "pickle", *words)


def test_a_push_without_weights_says_so(ann: Pusher) -> None:
    said(
        ann.preupload({"tokenizer.json": b"{}", "README.md": b"#"}), 400, "no weights in this push"
    )
    said(ann.commit({"README.md": b"#"}), 400, "no weights in this push")
    assert ann.preupload(dict.fromkeys((f"{n}.json" for n in range(3)), b"")).status_code == 400


@pytest.mark.parametrize("rev", ["main", "v0", "refs/heads/main", "HEAD"])
def test_a_push_to_a_branch_or_a_tag_says_how_it_is_done(ann: Pusher, rev: str) -> None:
    ann.send(RAW)
    said(ann.preupload(weights(), rev, query=""), 403, "create_pr=True", "--create-pr")
    said(ann.commit(weights(), rev, query=""), 403, "create_pr=True", "--create-pr")
    assert ann.contributions() == []


def test_deletions_and_copies_are_refused(ann: Pusher) -> None:
    address = f"/api/models/{MODEL}/commit/main?create_pr=1"
    said(
        ann.post(address, content=lines(("deletedFile", {"path": "config.json"}))), 400, "deletions"
    )
    copy = {"path": WEIGHTS, "algo": "sha256", "oid": digest(RAW)}
    said(ann.post(address, content=lines(("lfsFile", copy))), 400, "no new weights")


def test_the_base_is_what_was_named(repo: Repository, ann: Pusher) -> None:
    repo.client(repo.token("max", "maintainer")).put(
        f"/v1/models/{MODEL}/policy", json={"max_staleness": 5, "screening": {}}
    )
    first = repo.get(f"/v1/models/{MODEL}/bases/v0")["digest"][:40]
    Pusher(repo, "eve").push(weights(9))
    fuse(repo)
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v1"
    ann.push(weights(1))
    ann.push(weights(2), rev="v0")
    ann.push(weights(3), parentCommit=first)
    ann.push(weights(4), rev=first)
    assert [made["base"] for made in ann.contributions()] == ["v0", "v0", "v0", "v1"]
    ann.send(*weights(5).values())
    said(ann.commit(weights(5), parentCommit="f" * 40), 404, "no revision")
    said(ann.commit(weights(5), rev="v7"), 404, "no base")


def test_what_comes_too_late_is_told_what_to_do(repo: Repository, ann: Pusher) -> None:
    strict = {"max_staleness": 0, "min_contributions": 100}
    policy = f"/v1/models/{MODEL}/policy"
    assert repo.client(repo.token("m", "maintainer")).put(policy, json=strict).status_code == 200
    Pusher(repo, "eve").push(weights(9))
    fuse(repo)
    ann.send(RAW)
    late = ann.commit(weights(), rev="v0")
    said(late, 409, "v1 is the newest base", "coldfusion-client push", "--onto latest")
    assert ann.commit(weights()).status_code == 200


def test_the_same_weights_count_once(repo: Repository, ann: Pusher) -> None:
    number = ann.push(weights())
    # Whoever sends them: told before a byte is.
    (told,) = Pusher(repo, "bob").batch(RAW).json()["objects"]
    assert told["error"]["code"] == 409 and "were contributed before" in told["error"]["message"]
    # The very same push again is the same pull request, and none of it is sent again.
    (told,) = ann.batch(RAW).json()["objects"]
    assert "actions" not in told and "error" not in told
    again = ann.commit(weights())
    assert again.json()["pullRequestUrl"].endswith(f"/{number}")
    assert ann.commit(weights(), f"refs/pr/{number}", query="").status_code == 200
    ann.send(body_file(2))
    other = ann.commit(weights(2), f"refs/pr/{number}", query="")
    said(other, 409, "is contribution", "create_pr=True")
    assert len(ann.contributions()) == 1
    # What was fused waits no more.
    fuse(repo)
    (told,) = ann.batch(RAW).json()["objects"]
    assert told["error"]["code"] == 409


def test_what_was_sent_before_a_death_is_not_sent_again(repo: Repository, ann: Pusher) -> None:
    ann.send(RAW)
    (told,) = ann.batch(RAW).json()["objects"]
    assert "actions" not in told and "error" not in told
    assert ann.commit(weights()).status_code == 200
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"


def test_bytes_that_were_never_sent_cannot_be_committed(repo: Repository, ann: Pusher) -> None:
    said(ann.commit(weights()), 409, "were not sent")
    Pusher(repo, "bob").send(RAW)
    # Digests are public: another's bytes are none of one's own.
    said(ann.commit(weights()), 409, "were not sent")
    ann.batch(RAW)
    said(ann.commit(weights()), 409, "parts", "have not arrived")


def test_other_bytes_than_were_named_are_rejected(repo: Repository, ann: Pusher) -> None:
    (told,) = ann.batch(RAW).json()["objects"]
    ann.put(told, RAW[:-1] + b"!")
    number = int(ann.commit(weights()).json()["pullRequestUrl"].rsplit("/", 1)[1])
    repo.work()
    assert ann.details(number)["status"] == "closed"
    assert "rejected" in ann.verdict(number) and "SHA-256" in ann.verdict(number)
    assert ann.push(weights()) == number + 1
    repo.work()
    assert ann.contributions()[0]["state"] == "accepted"


def test_what_no_contribution_could_be_is_refused_at_once(repo: Repository, ann: Pusher) -> None:
    address = f"/{MODEL}.git/info/lfs/objects/batch"
    huge = {"oid": "a" * 64, "size": 2**40}
    answer = ann.post(address, json={"operation": "upload", "objects": [huge]})
    (told,) = answer.json()["objects"]
    assert told["error"]["code"] == 413 and "are the most" in told["error"]["message"]
    said(ann.post(address, json={"operation": "download", "objects": []}), 400)
    said(ann.post(address, json={"operation": "upload", "objects": [{"oid": "x", "size": 1}]}), 400)
    said(ann.post(address, content=b"{"), 400, "no JSON")


def test_large_files_come_in_parts_or_in_one_request(repo: Repository, ann: Pusher) -> None:
    repo.model("demo/wide", {"w.weight": np.zeros((300, 300), "f4")})
    wide = Pusher(repo, "bob", "demo/wide")
    raw = b"x" * 200_000
    (one,) = wide.batch(raw, transfers=["basic"]).json()["objects"]
    assert "header" not in one["actions"]["upload"]
    other = b"y" * 200_000
    (many,) = wide.batch(other).json()["objects"]
    header = many["actions"]["upload"]["header"]
    assert header["chunk_size"] == str(64 * 1024) and sorted(header) == [
        "1",
        "2",
        "3",
        "4",
        "chunk_size",
    ]
    wide.put(one, raw)
    wide.put(many, other)
    assert all("actions" not in told for told in wide.batch(raw, other).json()["objects"])


def completion(ann: Pusher) -> str:
    raw = b"z" * 200_000
    (told,) = ann.batch(raw).json()["objects"]
    return str(told["actions"]["upload"]["href"])


def test_a_completion_url_is_good_for_one_upload_and_for_a_while(repo: Repository) -> None:
    repo.model("demo/wide", {"w.weight": np.zeros((300, 300), "f4")})
    href = completion(Pusher(repo, "bob", "demo/wide"))
    anonymous, body = repo.client(), {"oid": "a" * 64, "parts": []}
    said(anonymous.post(href, json=body), 409, "have not arrived")
    url = urlsplit(href)
    for wrong in (
        href.replace("size=200000", "size=1"),
        href.replace("demo/wide", MODEL),
        href.replace(".0?", ".1?"),
        f"{url.path}",
        href[:-1] + ("0" if href[-1] != "0" else "1"),
        href.replace("signature=", "signature=%C3%A4"),
    ):
        said(anonymous.post(wrong, json=body), 403, "signed")
    repo.clock.advance(hours=2)
    said(anonymous.post(href, json=body), 403, "expired")


def test_who_may_not_push_is_told_why(repo: Repository, ann: Pusher) -> None:
    reader, visitor = repo.client(repo.token("rea", "reader")), repo.client()
    elsewhere = repo.client(repo.token("els", models=["demo/tiny"]))
    repo.model("demo/private", public=False)
    repo.model("demo/other")
    body = {"files": [{"path": WEIGHTS, "size": 5}]}
    address = f"/api/models/{MODEL}/preupload/main?create_pr=1"
    assert visitor.post(address, json=body).status_code == 401
    said(reader.post(address, json=body), 403, "role contributor")
    wrong = repo.client("cf_" + "0" * 16 + "_" + "a" * 43).post(address, json=body)
    assert wrong.status_code == 401
    assert wrong.headers["x-error-message"] == "Invalid credentials in Authorization header"
    said(elsewhere.post(address.replace(MODEL, "demo/other"), json=body), 403, "yours is for")
    for path in ("preupload/main?create_pr=1", "commit/main?create_pr=1", "discussions"):
        hidden = elsewhere.post(f"/api/models/demo/private/{path}", json=body)
        assert hidden.status_code == 404 and hidden.headers["x-error-code"] == "RepoNotFound"
    batch = {"operation": "upload", "objects": [{"oid": "a" * 64, "size": 1}]}
    lfs = "/demo/private.git/info/lfs/objects/batch"
    assert elsewhere.post(lfs, json=batch).status_code in (403, 404)
    assert visitor.post(f"/{MODEL}.git/info/lfs/objects/batch", json=batch).status_code == 401


def test_the_files_of_a_pull_request_are_for_a_few(repo: Repository, ann: Pusher) -> None:
    number = ann.push(weights())
    address = f"/{MODEL}/resolve/refs%2Fpr%2F{number}"
    # Before its screening there is no object of them.
    assert ann.client.get(f"{address}/{WEIGHTS}").status_code == 404
    repo.work()
    for role, name in (("contributor", "ann"), ("evaluator", "eva"), ("maintainer", "max")):
        client = repo.client(repo.token(name, role))
        assert client.get(f"{address}/{WEIGHTS}").content == RAW
        assert client.get(f"{address}/config.json").status_code == 200
        commit = client.get(f"/api/models/{MODEL}/revision/refs%2Fpr%2F{number}").json()["sha"]
        assert client.get(f"/{MODEL}/resolve/{commit}/{WEIGHTS}").content == RAW
        info = client.get(f"/api/models/{MODEL}/revision/refs%2Fpr%2F{number}").json()
        refs = client.get(f"/api/models/{MODEL}/refs?include_prs=1").json()["pullRequests"]
        assert [(ref["name"], ref["targetCommit"]) for ref in refs] == [
            (f"refs/pr/{number}", info["sha"])
        ]
    for client in (repo.client(), repo.client(repo.token("bob"))):
        assert client.get(f"/{MODEL}/resolve/{commit}/{WEIGHTS}").status_code == 404
        hidden = client.get(f"{address}/{WEIGHTS}")
        assert (hidden.status_code, hidden.headers["x-error-code"]) == (404, "RevisionNotFound")
        refs = client.get(f"/api/models/{MODEL}/refs?include_prs=1").json()
        assert refs["pullRequests"] == []
    withdrawn = ann.contributions()[0]["id"]
    ann.post(f"/v1/contributions/{withdrawn}/withdraw", json={"erase": True})
    assert ann.client.get(f"{address}/{WEIGHTS}").status_code == 404
    assert ann.details(number)["status"] == "closed"


def test_who_names_somebody_elses_bytes_gets_none_of_them(repo: Repository, ann: Pusher) -> None:
    repo.model("demo/other")
    ann.push(weights())
    repo.work()
    # Digests and sizes stand on public receipts; other bytes of that size arrive easily.
    bob = Pusher(repo, "bob", "demo/other")
    (told,) = bob.batch(RAW).json()["objects"]
    bob.put(told, RAW[:-1] + b"!")
    assert bob.commit(weights()).status_code == 200
    address = "/demo/other/resolve/refs%2Fpr%2F1/model.safetensors"
    assert bob.client.get(address).status_code == 404
    repo.work()
    assert bob.contributions()[0]["state"] == "rejected"
    assert bob.client.get(address).status_code == 404
    assert ann.client.get(f"/{MODEL}/resolve/refs%2Fpr%2F1/{WEIGHTS}").content == RAW


def test_pull_requests_are_listed_and_nobody_talks_there(repo: Repository, ann: Pusher) -> None:
    numbers = [ann.push(weights(seed)) for seed in (1, 2, 3)]
    Pusher(repo, "bob").push(weights(4))
    address = f"/api/models/{MODEL}/discussions"
    listed = repo.get(f"{address}?p=0")
    assert [item["num"] for item in listed["discussions"]] == [4, *reversed(numbers)]
    assert (listed["count"], listed["start"]) == (4, 0)
    assert repo.get(f"{address}?author=bob")["count"] == 1
    assert repo.get(f"{address}?status=closed")["count"] == 0
    assert repo.get(f"{address}?type=discussion")["discussions"] == []
    assert repo.get(f"{address}?p=1")["discussions"] == []
    for path in ("comment", "status", "title"):
        said(ann.post(f"{address}/1/{path}", json={}), 403, "withdraw")
    said(ann.post(f"{address}/1/merge", json={}), 403, "merged by this Repository")
    said(ann.post(address, json={"title": "Hello", "pullRequest": False}), 403)
    for number in ("9", "0", "x", "01", "99999999999"):
        assert ann.client.get(f"{address}/{number}").status_code == 404
    sha = repo.get(f"/api/models/{MODEL}")["sha"]
    head = repo.client().get(f"/{MODEL}/commit/{sha}", follow_redirects=False)
    assert head.headers["location"].endswith(f"/models/{MODEL}/bases/v0")
    assert repo.client().get(f"/{MODEL}/commit/{'e' * 40}").status_code == 404
    page = repo.client().get(f"/{MODEL}/discussions/1", follow_redirects=False)
    assert page.status_code == 303
    assert page.headers["location"].endswith(f"/contributions/{ann.contributions()[-1]['id']}")


def test_somebody_elses_pull_request_takes_nothing(repo: Repository, ann: Pusher) -> None:
    number = ann.push(weights())
    bob = Pusher(repo, "bob")
    bob.send(body_file(2))
    rev = f"refs/pr/{number}"
    said(bob.commit(weights(2), rev, query=""), 403, "somebody else")
    said(bob.preupload(weights(2), rev, query=""), 403, "somebody else")
    said(bob.commit(weights(2), "refs/pr/77", query=""), 404)


def test_a_repository_is_there_already_or_made_by_the_operator(
    repo: Repository, ann: Pusher
) -> None:
    repo.model("demo/private", public=False)
    there = ann.post("/api/repos/create", json={"name": "tiny", "organization": "demo"})
    assert there.status_code == 409 and there.json()["url"].endswith(f"/{MODEL}")
    others = repo.client(repo.token("els", models=[MODEL]))
    for body in (
        {"name": "new", "organization": "demo"},
        {"name": "private", "organization": "demo"},
        {"name": "tiny"},
        {"name": "tiny", "organization": "demo", "type": "dataset"},
    ):
        said(others.post("/api/repos/create", json=body), 403, "operator")
    said(ann.post(f"/api/models/{MODEL}/branch/mine", json={}), 403, "create_pr=True")
    assert ann.post(f"/api/models/{MODEL}/branch/v0", json={}).status_code == 409
    checked = ann.post("/api/validate-yaml", json={"content": "---\n", "repoType": "model"})
    assert checked.json() == {"errors": [], "warnings": []}


def test_what_is_said_is_kept_as_it_can_be(repo: Repository, ann: Pusher) -> None:
    # Neither a terminal's commands, nor a line that reads as ours, nor letters turned round.
    evil = "<script>\0\x1b[31m\x9b2J\u202e\r\nSTATUS" + "é" * 600 + "\ud800"
    number = ann.push(weights(), summary=evil, description=evil * 30)
    shown = ann.details(number)
    assert shown["title"] == ("<script>[31m2J STATUS" + "é" * 600)[:500]
    assert ann.verdict(number) and shown["events"][0]["data"]["latest"]["raw"].startswith(
        "<script>[31m2J\nSTATUSé"
    )
    nameless = {"title": "\x1b \n", "pullRequest": True}
    drawn = ann.post(f"/api/models/{MODEL}/discussions", json=nameless)
    assert drawn.json()["title"] == "A pull request without a title"
    page = repo.client().get(f"/contributions/{ann.contributions()[0]['id']}")
    assert page.status_code == 200 and "<script>[31m" not in page.text


def test_files_sent_ahead_expire_and_free_their_room(repo: Repository, ann: Pusher) -> None:
    ann.send(RAW)
    stored = repo.ctx.store.put([b"{}"])
    staging.note_stored(repo.ctx, MODEL, repo.principal("ann"), stored.sha256, stored.size)
    repo.clock.advance(hours=23)
    assert staging.expire(repo.ctx) == 0
    assert collect(repo.ctx, "tests").uploads == 0
    assert len(repo.ctx.store.pending_uploads()) == 1
    repo.clock.advance(hours=2)
    assert staging.expire(repo.ctx) == 2
    assert repo.ctx.store.pending_uploads() == []
    assert not repo.ctx.store.exists(stored.sha256)
    said(ann.commit(weights()), 409, "were not sent, or were given up")


def test_asking_again_keeps_what_was_sent_alive(repo: Repository, ann: Pusher) -> None:
    ann.send(RAW)
    repo.clock.advance(hours=20)
    ann.batch(RAW)
    repo.clock.advance(hours=20)
    assert staging.expire(repo.ctx) == 0


def test_inline_content_is_bounded_and_right(ann: Pusher) -> None:
    address = f"/api/models/{MODEL}/commit/main?create_pr=1"
    large = base64.b64encode(b"x" * (2**20 + 1)).decode()
    entry = {"path": WEIGHTS, "content": large, "encoding": "base64"}
    said(ann.post(address, content=lines(("file", entry))), 413, "are the most")
    wrong = {"path": WEIGHTS, "content": "!!!", "encoding": "base64"}
    said(ann.post(address, content=lines(("file", wrong))), 400, "no base64")
    begins = {
        "path": WEIGHTS,
        "content": base64.b64encode(archive()).decode(),
        "encoding": "base64",
    }
    said(ann.post(address, content=lines(("file", begins))), 400, "pickle")
    said(ann.post(address, content=b"\n".join([b"{}"] * 9)), 400, "Line 1")
    assert ann.post(address, content=b"x" * (5 * 2**20)).status_code == 413
