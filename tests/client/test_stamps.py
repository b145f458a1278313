from __future__ import annotations

import os
from pathlib import Path

import pytest

from coldfusion_client import stamps


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    monkeypatch.setattr(stamps, "_BOOT_ID", path)
    return path


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    return calls


def test_a_stamp_fits_until_the_file_changes(file: Path, boot: Path) -> None:
    assert not stamps.fits(file)
    stamps.stamp(file)
    assert stamps.fits(file)
    os.utime(file, (1, 1))
    assert not stamps.fits(file)


def test_after_a_restart_the_file_is_verified_once_more_and_not_again(
    file: Path, boot: Path
) -> None:
    stamps.stamp(file)
    boot.write_text("second\n")
    assert not stamps.fits(file)
    stamps.stamp(file)
    boot.write_text("third\n")
    assert stamps.fits(file)


def test_a_file_that_changed_before_the_restart_is_new(file: Path, boot: Path) -> None:
    stamps.stamp(file)
    boot.write_text("second\n")
    file.write_bytes(b"other")
    stamps.stamp(file)
    boot.write_text("third\n")
    assert not stamps.fits(file)


def test_stamps_of_older_clients_fit(file: Path, boot: Path) -> None:
    status = file.stat()
    file.with_name("object.stamp").write_text(f"{status.st_size} {status.st_mtime_ns}")
    assert stamps.fits(file)


@pytest.mark.parametrize("knows_its_start", [True, False])
def test_the_disk_is_waited_for_only_where_the_system_does_not_know_its_start(
    file: Path, boot: Path, synced: list[int], knows_its_start: bool
) -> None:
    if not knows_its_start:
        boot.unlink()
    stamps.stamp(file)
    assert len(synced) == (1 if knows_its_start else 2)  # the stamp itself always is
    assert stamps.fits(file)
