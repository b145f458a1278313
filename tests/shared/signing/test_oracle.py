"""What the package `model-signing` says of our signatures, and we of the package's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from coldfusion_shared.signing.model_signature import SIGNATURE_FILE, contents, signed_files
from tests.shared.signing.signed import FILES, KEY, OTHER, manifest_of, written

real = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("model_signing", "OpenSSL"))),
    reason="the package model-signing, or pyOpenSSL, which it needs, is not installed",
)


def model_signing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "private.pem").write_bytes(KEY.pem)
    (folder / "public.pem").write_bytes(KEY.public.pem)
    (folder / "other.pem").write_bytes(OTHER.public.pem)
    return folder


def verified(folder: Path, key: Path) -> bool:
    signature = folder / SIGNATURE_FILE
    ended = model_signing("verify", "key", folder, "--signature", signature, "--public_key", key)
    assert "Traceback" not in ended.stderr
    return ended.returncode == 0


@real
def test_the_package_takes_a_folder_as_a_pull_writes_it(tmp_path: Path, keys: Path) -> None:
    folder = written(tmp_path / "model", FILES)
    assert verified(folder, keys / "public.pem")
    assert not verified(folder, keys / "other.pem")
    (folder / "manifest.json").write_bytes(b"{}")
    assert not verified(folder, keys / "public.pem")


@real
@pytest.mark.parametrize("change", ["changed", "missing", "more"])
def test_the_package_refuses_what_we_refuse(tmp_path: Path, keys: Path, change: str) -> None:
    folder = written(tmp_path / "model", FILES)
    file = folder / ("more.txt" if change == "more" else "config.json")
    if change == "missing":
        file.unlink()
    else:
        file.write_bytes(b"{}")
    assert not verified(folder, keys / "public.pem")


@real
def test_we_take_what_the_package_signs(tmp_path: Path, keys: Path) -> None:
    folder = written(tmp_path / "model", FILES)
    theirs = tmp_path / "theirs.sig"
    ignored = [word for name in ("coldfusion.json", SIGNATURE_FILE)
               for word in ("--ignore-paths", folder / name)]  # fmt: skip
    private = keys / "private.pem"
    ended = model_signing(
        "sign", "key", folder, "--signature", theirs, "--private_key", private, *ignored
    )
    assert ended.returncode == 0, ended.stderr
    ours = (folder / SIGNATURE_FILE).read_text()
    found = signed_files(theirs.read_text(), KEY.public, "it")
    assert list(found.items()) == list(signed_files(ours, KEY.public, "it").items())


def test_a_signature_that_the_package_once_made_is_taken() -> None:
    # model-signing 1.1.1: sign key, with this test's own key, of a folder as `written` makes them.
    recorded = Path(__file__).with_name("recorded.sig").read_text()
    found = signed_files(recorded, KEY.public, "it")
    assert list(found) == sorted(found, key=lambda name: name.split("/"))
    assert found == contents(manifest_of(FILES))
