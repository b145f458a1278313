"""What each pushed file is: one of a few names is taken, and nothing else ever."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.services.pushed_files import (
    TAKEN,
    Fate,
    encoding_of,
    fate_of,
    is_pickle,
    missing_of,
)
from coldfusion_shared.errors import InvalidRequest
from tests.shared.checkpoints import file_bytes

NAMES = st.sampled_from([*sorted(TAKEN), "config.json", "x.bin", "sub/model.safetensors", "a.py"])


@given(NAMES | st.text(max_size=40), st.none() | st.binary(max_size=60), st.none() | st.integers(0))
def test_only_a_few_names_are_ever_taken(path: str, sample: bytes | None, size: int | None) -> None:
    try:
        fate = fate_of(path, sample, size)
    except InvalidRequest as error:
        # It goes into a header and onto a terminal.
        assert (error.message + (error.hint or "")).isprintable()
    else:
        assert (fate == Fate.TAKEN) == (path in TAKEN)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_known_by_how_they_begin(protocol: int) -> None:
    assert is_pickle(pickle.dumps({"weights": [1.0] * 99}, protocol)[:512])


def test_what_torch_saves_is_known_old_and_new() -> None:
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"w": torch.ones(3)}, file, _use_new_zipfile_serialization=new)
        assert is_pickle(file.getvalue()[:512])


@pytest.mark.parametrize("count", [1, 7, 300])
def test_weights_are_no_pickles(count: int) -> None:
    raw = file_bytes({f"layer.{n}.weight": np.ones(3, np.float32) for n in range(count)})
    assert not is_pickle(raw[:512])
    assert fate_of("model.safetensors", raw[:512], len(raw)) == Fate.TAKEN


def test_a_header_of_any_length_is_no_pickle() -> None:
    # Lengths whose first bytes are those of a pickle.
    for version in range(2, 6):
        length = int.from_bytes(bytes([0x80, version]), "little")
        head = struct.pack("<Q", length) + b'{"a"'
        assert fate_of("model.safetensors", head, 2**30) == Fate.TAKEN


def test_what_the_files_make_together() -> None:
    assert encoding_of(["model.safetensors"]) == "full"
    assert encoding_of(["adapter_model.safetensors", "adapter_config.json"]) == "lora"
    assert encoding_of(["adapter_config.json"]) is None and encoding_of([]) is None
    assert missing_of(["adapter_config.json"]) == "adapter_model.safetensors"
    assert "model.safetensors" in missing_of([])
    for extra in (["adapter_config.json"], ["adapter_config.json", "adapter_model.safetensors"]):
        with pytest.raises(InvalidRequest, match="no one contribution"):
            encoding_of(["model.safetensors", *extra])
