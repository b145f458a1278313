"""In which form an update is sent: what the connection asks for, and what the model takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_client.forms import (
    AUTO,
    FULL,
    LORA,
    PATIENCE_SECONDS,
    SHARES,
    check_form,
    choose_encodings,
)
from coldfusion_client.speeds import note_upload, upload_speed
from coldfusion_shared.errors import EncodingRefused, InvalidRequest, UnknownName
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.weights.codecs import discover

ANY = Policy()
MB = 10**6


@pytest.mark.parametrize(
    ("size", "speed", "first"),
    [
        (100 * MB, 10 * MB, "full"),
        (100 * MB, 1 * MB, "delta"),
        (100 * MB, 0.5 * MB, "delta-int8"),
        (100 * MB, 0.1 * MB, "delta-sparse"),
        (100 * MB, 0.06 * MB, "delta-sign"),
        (28_000 * MB, 2 * MB, "delta-sign"),
        # Without a measurement a home connection is assumed, of 2 MB a second.
        (100 * MB, None, "full"),
        (500 * MB, None, "delta-int8"),
    ],
)
def test_auto_is_the_most_exact_one_that_is_sent_soon(
    size: int, speed: float | None, first: str
) -> None:
    chosen = choose_encodings(AUTO, ANY, size, speed)
    assert chosen[0] == first
    assert chosen[-1] == "full"


@given(
    st.lists(st.sampled_from([*SHARES, LORA]), min_size=1, unique=True),
    st.integers(1, 10**12),
    st.floats(1, 1e9),
)
def test_only_what_the_model_takes_is_chosen(taken: list[str], size: int, speed: float) -> None:
    policy = Policy(encodings=taken)
    if taken == [LORA]:
        with pytest.raises(EncodingRefused, match="nothing but lora"):
            choose_encodings(AUTO, policy, size, speed)
        return
    chosen = choose_encodings(AUTO, policy, size, speed)
    assert set(chosen) <= set(taken)
    shares = [SHARES[name] for name in chosen]
    assert shares == sorted(shares)
    better = [name for name in taken if name in SHARES and SHARES[name] > shares[0]]
    assert all(SHARES[name] * size / speed > PATIENCE_SECONDS for name in better)


def test_one_that_is_asked_for_is_followed_by_more_exact_ones() -> None:
    assert choose_encodings("delta-int8", ANY, 1, 1) == ["delta-int8", "delta", "full"]
    some = Policy(encodings=["delta-int8", "full", "delta-sign"])
    assert choose_encodings("delta-sign", some, 1, 1) == ["delta-sign", "delta-int8", "full"]
    assert choose_encodings(LORA, ANY, 1, 1) == [LORA]


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="zip") as caught:
        choose_encodings("zip", ANY, 1, 1)
    assert caught.value.hint is not None and "delta-int8" in caught.value.hint
    with pytest.raises(EncodingRefused, match="delta-sign") as refused:
        choose_encodings("delta-sign", Policy(encodings=["full"]), 1, 1)
    assert refused.value.hint is not None and "It takes: full" in refused.value.hint


def test_an_adapter_travels_as_it_is() -> None:
    for encoding in (AUTO, FULL, LORA):
        check_form(encoding, ANY, adapter=True)
    with pytest.raises(InvalidRequest, match="not as delta-int8"):
        check_form("delta-int8", ANY, adapter=True)
    with pytest.raises(EncodingRefused, match="no LoRA adapters") as refused:
        check_form(AUTO, Policy(encodings=["full"]), adapter=True)
    assert refused.value.hint is not None and "merge_and_unload" in refused.value.hint


def test_weights_travel_in_any_form_but_an_adapters() -> None:
    for encoding in (AUTO, *SHARES):
        check_form(encoding, ANY, adapter=False)
    with pytest.raises(InvalidRequest, match="no LoRA adapter to send"):
        check_form(LORA, ANY, adapter=False)
    with pytest.raises(UnknownName):
        check_form("zip", ANY, adapter=False)
    with pytest.raises(EncodingRefused, match="nothing but lora"):
        check_form(AUTO, Policy(encodings=[LORA]), adapter=False)


def test_all_that_there_are_can_be_chosen() -> None:
    assert {*SHARES, LORA} == set(discover())


def test_speeds_are_kept_by_server(tmp_path: Path) -> None:
    assert upload_speed(tmp_path, "http://a") is None
    note_upload(tmp_path, "http://a", 10 * 2**20, 2.0)
    note_upload(tmp_path, "http://b", 10 * 2**20, 20.0)
    assert upload_speed(tmp_path, "http://a") == 5 * 2**20
    assert upload_speed(tmp_path, "http://b") == 2**19
    # A few bytes say nothing.
    note_upload(tmp_path, "http://a", 1000, 2.0)
    assert upload_speed(tmp_path, "http://a") == 5 * 2**20


@pytest.mark.parametrize("content", ["", "[1]", '{"http://a": "fast"}', '{"http://a": -1}'])
def test_a_damaged_note_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "speeds.json").write_text(content)
    assert upload_speed(tmp_path, "http://a") is None
