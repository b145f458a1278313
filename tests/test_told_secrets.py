"""That the tests' own look for secrets finds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import told_secrets

TOKEN = f"cf_{'0' * 16}_{'A' * 43}"
SECRETS = [TOKEN, f"cfi_{'0' * 16}_{'A' * 22}", f"signature={'0' * 64}", f"eyJ{'a' * 20}.eyJ"]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_found_in_logs(secret: str, tmp_path: Path) -> None:
    inner = tmp_path / "a"
    inner.mkdir()
    (inner / "b.log").write_text(f"one\ntwo {secret} three\n")
    (found,) = told_secrets.in_logs(tmp_path)
    assert secret not in found
    (inner / "b.log").unlink()


@pytest.mark.parametrize(
    ("section", "text", "is_told"),
    [
        ("Captured stderr call", f"2026 [info     ] request path={TOKEN}", True),
        ("Captured log call", f"WARNING {TOKEN}", True),
        ("Captured stdout call", f"x\n2026 [info     ] request path={TOKEN}\n", True),
        # What `token create` is for.
        ("Captured stdout call", f"{TOKEN}\n", False),
        ("Captured stderr call", "cf_0123456789abcdef is an id", False),
    ],
)
def test_a_secret_is_found_in_what_a_test_has_logged(
    section: str, text: str, is_told: bool
) -> None:
    assert (told_secrets.in_report([("other", ""), (section, text)]) is not None) == is_told


@pytest.mark.parametrize(
    ("command", "is_told"),
    [
        (["coldfusion-client", "login", "http://x", "--token", TOKEN], True),
        (f"sh -c 'login {TOKEN}'", True),
        ([Path("coldfusion-client"), b"login", "http://x"], False),
        (Path("coldfusion-client"), False),
    ],
)
def test_a_secret_is_found_on_a_command_line(command: Any, is_told: bool) -> None:
    found = told_secrets.in_command(command)
    assert (found is not None) == is_told and TOKEN not in str(found)
