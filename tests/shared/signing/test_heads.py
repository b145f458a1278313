from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from coldfusion_shared.errors import BadSignature, KeyChanged
from coldfusion_shared.signing.heads import Head, TakenBack, check_head, new_nonce, sign_head
from tests.shared.signing.signed import KEY, OTHER

AT = datetime(2026, 1, 1, tzinfo=UTC)


def head(**changes: Any) -> Head:
    back = TakenBack(from_version="v5", to_version="v3", reason="harm", at=AT)
    values: dict[str, Any] = {
        "model": "demo/tiny",
        "version": "v3",
        "digest": "a" * 64,
        "at": AT,
        "nonce": "1" * 32,
        "taken_back": [back],
    }
    return Head(**{**values, **changes})


def test_a_head_comes_back_as_it_was_signed() -> None:
    assert check_head(sign_head(head(), KEY), "demo/tiny", "1" * 32, KEY.public) == head()


@pytest.mark.parametrize(
    "signed",
    [head(nonce="2" * 32), head(nonce=""), head(model="demo/other")],
    ids=["old", "anybody's", "another model's"],
)
def test_an_old_head_or_one_of_another_model_is_refused(signed: Head) -> None:
    with pytest.raises(BadSignature, match="old"):
        check_head(sign_head(signed, KEY), "demo/tiny", "1" * 32, KEY.public)


def test_another_key_is_said() -> None:
    with pytest.raises(KeyChanged):
        check_head(sign_head(head(), OTHER), "demo/tiny", "1" * 32, KEY.public)


def test_a_nonce_is_made_up() -> None:
    assert new_nonce() != new_nonce()
