"""Verifying: every kind of damage is found and named, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from coldfusion_server.__main__ import main
from coldfusion_server.cli import model_replay
from coldfusion_server.db.tables import BaseFileRow, BaseRow, ContributionFileRow
from coldfusion_server.services import digesting, replaying, replays, verifying
from coldfusion_server.services.digesting import DigestSink
from coldfusion_server.services.verifying import Verified, verify
from coldfusion_shared.errors import BaseNotFound, DigestMismatch, StorageFull
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.signing.keys import SigningKey
from coldfusion_shared.signing.model_signature import sign_base
from tests.server.lines import Line, coarse_tensors, manifest_of
from tests.server.repository import MODEL, SIGNING_KEY, repository


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A line with a master and an optimizer's state: v1, and v2 with a late contribution."""
    with repository(tmp_path / "data") as repo:
        repo.model(tensors=coarse_tensors(), by_hand=True, optimizer="momentum", pull=0.01)
        made = Line(repo)
        made.round({1: 0, 2: 0})
        made.round({3: 1, 4: 0})
        yield made


def verified(line: Line, version: str | None = None) -> list[Verified]:
    maintainer = line.repo.principal("max", "maintainer")
    return list(verify(line.repo.ctx, MODEL, version, maintainer))


def file_of(line: Line, version: str, path: str, part: str = "files") -> FileEntry:
    files = getattr(manifest_of(line.repo, version), part)
    (file,) = [file for file in files if file.path == path]
    return FileEntry.model_validate(file.model_dump())


def damage(line: Line, sha256: str, how: str) -> None:
    path = line.repo.ctx.store.local_path(sha256)
    assert path is not None
    raw = bytearray(path.read_bytes())
    path.chmod(0o644)
    if how == "missing":
        path.unlink()
    elif how == "shorter":
        path.write_bytes(raw[:-1])
    else:
        raw[-1] ^= 1
        path.write_bytes(raw)


def test_what_was_published_verifies(line: Line) -> None:
    told: list[tuple[str, int, int]] = []
    maintainer = line.repo.principal("max", "maintainer")
    found = list(verify(line.repo.ctx, MODEL, None, maintainer, lambda *what: told.append(what)))
    assert [(one.version, one.faults, one.fused) for one in found] == [
        ("v0", [], False), ("v1", [], True), ("v2", [], True)
    ]  # fmt: skip
    manifest = manifest_of(line.repo, "v2")
    files = [*manifest.files, *manifest.master, *manifest.optimizer_state]
    assert (found[2].files, found[2].bytes) == (len(files), sum(file.size for file in files))
    assert all(done <= total for what, done, total in told if what.startswith("reading"))
    assert {"fusing v1", "fusing v2"} <= {what for what, _, _ in told}
    with pytest.raises(BaseNotFound):
        verified(line, "v9")


@pytest.mark.parametrize("how", ["missing", "changed", "shorter"])
@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("files", "model.safetensors"),
        ("files", "config.json"),
        ("files", "README.md"),
        ("master", "model.safetensors"),
        ("optimizer_state", "momentum/model.safetensors"),
    ],
)
def test_a_damaged_file_of_a_base_is_named(line: Line, part: str, path: str, how: str) -> None:
    damage(line, file_of(line, "v1", path, part).sha256, how)
    word = "missing" if how == "missing" else "changed"
    v0, v1, v2 = verified(line)
    assert [fault for fault in v1.faults if fault.startswith(f"{path} of v1 ")], v1.faults
    assert all(word in fault for fault in v1.faults)
    if path == "config.json":
        # All bases have the very same one.
        assert v0.faults and v2.faults
        return
    # v1 itself can be fused again; v2 cannot, where the file is part of what it was fused from.
    assert v1.fused and not v0.faults
    if path == "README.md":
        assert v2.fused and not v2.faults
    else:
        assert not v2.fused
        assert [fault for fault in v2.faults if "of v1, which it was fused from" in fault]


@pytest.mark.parametrize("how", ["missing", "changed", "shorter"])
def test_a_damaged_contribution_is_named(line: Line, how: str) -> None:
    item = manifest_of(line.repo, "v1").contributions[1]
    damage(line, item.files[0].sha256, how)
    v0, v1, v2 = verified(line)
    (fault,) = v1.faults
    assert fault.startswith(f"model.safetensors of contribution {item.id} ")
    assert not v1.fused and v2.fused and not v0.faults + v2.faults


def test_a_damaged_base_of_a_late_contribution_is_named(line: Line) -> None:
    damage(line, file_of(line, "v0", "model.safetensors").sha256, "changed")
    found = verified(line)
    assert not any(one.fused for one in found)
    assert [one.faults[0].split(" of ")[1][:2] for one in found] == ["v0", "v0", "v0"]


def test_what_was_erased_is_told_and_no_fault(line: Line) -> None:
    first, second = manifest_of(line.repo, "v1").contributions
    with line.repo.ctx.database.write() as session:
        session.execute(
            update(ContributionFileRow)
            .where(ContributionFileRow.contribution_id == second.id)
            .values(erased_at=line.repo.clock())
        )
    damage(line, second.files[0].sha256, "missing")
    _, v1, v2 = verified(line)
    assert (v1.faults, v1.fused) == ([], False)
    assert v1.unfused == f"contribution {second.id} was erased on 2026-06-01"
    assert v2.fused
    damage(line, file_of(line, "v1", "README.md").sha256, "changed")
    (v1,) = verified(line, "v1")
    assert len(v1.faults) == 1 and "README.md" in v1.faults[0]


# The database tells another story.


def change(line: Line, number: int, **changes: Any) -> None:
    with line.repo.ctx.database.write() as session:
        session.execute(update(BaseRow).where(BaseRow.number == number).values(**changes))


def rewritten(line: Line, number: int, manifest: Manifest) -> None:
    """Put another manifest there, as whoever has the key can."""
    text, signature = manifest.canonical().decode(), sign_base(manifest, SIGNING_KEY)
    change(line, number, manifest=text, digest=manifest.digest(), signature=signature)


def test_a_manifest_that_was_never_signed_is_found_though_its_digest_is_its_own(line: Line) -> None:
    manifest = manifest_of(line.repo, "v2")
    other = manifest.model_copy(update={"software": "somebody's own"})
    change(line, 2, manifest=other.canonical().decode(), digest=other.digest())
    (v2,) = verified(line, "v2")
    (fault,) = v2.faults
    assert (fault, v2.signed) == (f"The signature of {MODEL} v2 is of another base.", True)
    # What has none is told, and is no fault.
    change(line, 2, signature=None)
    (v2,) = verified(line, "v2")
    assert (v2.faults, v2.signed) == ([], False)
    change(line, 2, signature=sign_base(other, SigningKey.new()))
    (v2,) = verified(line, "v2")
    assert "not by the trusted one" in v2.faults[0]


@pytest.mark.parametrize("with_its_digest", [False, True])
def test_a_manifest_that_was_cut_is_a_fault_and_the_others_are_looked_at(
    line: Line, with_its_digest: bool
) -> None:
    text = manifest_of(line.repo, "v1").canonical().decode()[:-20]
    digest = hashlib.sha256(text.encode()).hexdigest()
    change(line, 1, manifest=text, **({"digest": digest} if with_its_digest else {}))
    v0, v1, v2 = verified(line)
    assert not v0.faults and not v1.fused and not v2.fused
    said = "cannot be read" if with_its_digest else "was changed"
    assert [fault for fault in v1.faults if said in fault], v1.faults
    assert v2.files and [fault for fault in v2.faults if "cannot be fused again" in fault]


def test_a_changed_manifest_breaks_the_chain(line: Line) -> None:
    manifest = manifest_of(line.repo, "v1")
    other = manifest.model_copy(update={"server_lr": 0.5})
    change(line, 1, manifest=other.canonical().decode())
    (v1,) = verified(line, "v1")
    assert [fault for fault in v1.faults if "manifest of v1 was changed" in fault]
    # With a digest to match, the next base's manifest still says what it was fused onto.
    rewritten(line, 1, other)
    _, v1, v2 = verified(line)
    assert not v1.faults
    assert [fault for fault in v2.faults if "v2 was fused onto a v1 with the digest" in fault]
    assert not v2.fused


def test_weights_that_no_fuse_makes_are_found_whatever_their_digests_say(line: Line) -> None:
    before = file_of(line, "v2", "model.safetensors")
    path = line.repo.ctx.store.local_path(before.sha256)
    assert path is not None
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    stored = line.repo.ctx.store.put([bytes(raw)])
    other = FileEntry(path=before.path, size=stored.size, sha256=stored.sha256)
    manifest = manifest_of(line.repo, "v2")
    files = [other if file == before else file for file in manifest.files]
    rewritten(line, 2, manifest.model_copy(update={"files": files}))
    with line.repo.ctx.database.write() as session:
        session.execute(
            update(BaseFileRow)
            .where(BaseFileRow.sha256 == before.sha256)
            .values(sha256=other.sha256)
        )
    (v2,) = verified(line, "v2")
    (fault,) = v2.faults
    assert fault.startswith("model.safetensors (weights) of v2 is not what comes out of the fuse")
    assert not v2.fused


@pytest.mark.parametrize("part", ["master", "optimizer_state"])
def test_a_view_that_the_manifest_has_not_is_found(line: Line, part: str) -> None:
    manifest = manifest_of(line.repo, "v2")
    rewritten(line, 2, manifest.model_copy(update={part: []}))
    (v2,) = verified(line, "v2")
    (fault,) = v2.faults
    assert "has no such file" in fault


def test_rows_that_do_not_fit_the_manifest_are_found(line: Line) -> None:
    with line.repo.ctx.database.write() as session:
        row = session.scalars(select(BaseFileRow).where(BaseFileRow.path == "README.md")).first()
        assert row is not None
        row.size += 1
    change(line, 2, parent_number=0)
    v0, _, v2 = verified(line)
    assert "files listed for v0" in v0.faults[0]
    assert "v2 is said to come from another base" in v2.faults[0]


def test_a_base_whose_parent_is_gone_cannot_be_fused_again(line: Line) -> None:
    change(line, 1, digest="0" * 64)
    (v2,) = verified(line, "v2")
    assert not v2.fused
    assert [fault for fault in v2.faults if "cannot be fused again" in fault]


def test_an_object_that_several_bases_have_is_read_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = digesting.object_digest

    def counted(ctx: Any, name: str, progress: Any) -> Any:
        read.append(name)
        return digest(ctx, name, progress)

    monkeypatch.setattr(verifying, "object_digest", counted)
    verified(line)
    assert len(read) == len(set(read))


def test_the_sink_keeps_digests_alone() -> None:
    writer = DigestSink().open_object()
    for data in (b"ab", memoryview(b"c")):
        writer.write(data)
    writer.finish()
    entry = writer.commit()
    assert (entry.size, entry.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(DigestMismatch):
        writer.commit("0" * 64)
    writer.abort()


# The command.


def run(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setenv("COLDFUSION_DATA_DIR", str(line.repo.folder))
    monkeypatch.setattr(sys, "argv", ["coldfusion-server", *words])
    capsys.readouterr()
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def test_the_commands(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        return run(line, monkeypatch, capsys, *words)

    code, out, _ = said("verify", MODEL, "--all")
    assert code == 0 and out.count("the same bytes") == 2
    assert "All is well with 3 bases" in out
    code, out, _ = said("verify", MODEL, "--json")
    (found,) = json.loads(out)
    assert (code, found["version"], found["fused"], found["faults"]) == (0, "v2", True, [])
    code, _, err = said("verify", MODEL, "v1", "--all")
    assert code == 1 and "not both" in err

    item = manifest_of(line.repo, "v2").contributions[0]
    code, out, _ = said("model", "replay", MODEL, "--without", item.id, "--reason", "poison")
    assert code == 0 and "queued, 0 of 1 fused" in out
    line.repo.work()
    (replay,) = json.loads(said("model", "replay", MODEL, "--json")[1])
    change(line, 2, signature=None)
    code, out, _ = said("verify", MODEL)
    assert code == 0 and "v2: not signed" in out and "key --sign-again" in out
    code, out, _ = said("model", "replay", MODEL, "--show", replay["id"])
    assert "ready, 1 of 1 fused" in out and f"--publish {replay['id']}" in out
    assert "DISTANCE" in out
    assert replay["id"] in said("model", "replay", MODEL)[1]
    code, out, _ = said("model", "replay", MODEL, "--publish", replay["id"])
    assert code == 0 and "v3" in out
    assert said("model", "replay", MODEL, "--publish", replay["id"])[0] == 1
    assert said("model", "replay", MODEL, "--discard", replay["id"])[0] == 1
    for wrong in (
        ["--without", "a", "--publish", "b"],
        ["--wait"],
        ["--without", item.id, "--from", "1"],
        ["--show", "nothing"],
    ):
        code, _, err = said("model", "replay", MODEL, *wrong)
        assert code == 1 and err.startswith("Error: ")

    damage(line, item.files[0].sha256, "missing")
    code, out, _ = said("verify", MODEL, "--all")
    assert code == 1
    assert f"contribution {item.id} is missing" in out and "1 of 4 bases" in out


@pytest.mark.parametrize("what", ["done", "given up", "failed"])
def test_waiting_for_a_replay_ends_as_the_replay_does(
    line: Line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    ctx, maintainer = line.repo.ctx, line.repo.principal("max", "maintainer")

    def sleep(_: float) -> None:
        (found,) = replays.list_replays(ctx, MODEL, maintainer)
        if what == "given up":
            replays.discard(ctx, MODEL, found.id, maintainer)
        else:
            line.repo.work()

    def full(*_: Any) -> None:
        raise StorageFull("The disk is full, says the test.")

    if what == "failed":
        monkeypatch.setattr(replaying, "describe", full)
    monkeypatch.setattr(model_replay, "time", SimpleNamespace(sleep=sleep))
    item = manifest_of(line.repo, "v2").contributions[0]
    order = ("model", "replay", MODEL, "--without", item.id, "--wait")
    code, out, _ = run(line, monkeypatch, capsys, *order)
    state = {"done": "ready", "given up": "discarded", "failed": "failed"}[what]
    assert (code, f": {state}, " in out) == (0 if what == "done" else 1, True)
