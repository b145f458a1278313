from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from coldfusion_shared.errors import InvalidRequest, TrainingFailed
from coldfusion_shared.finetune import FinetuneSettings, finetune, precision, threads
from coldfusion_shared.finetune.precision import choose_precision
from tests.tiny_models import tiny_bert
from tests.toy_data import toy_dataset

SETTINGS = FinetuneSettings(epochs=5, lr=3e-3, max_length=24, seed=1, early_stopping=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def run(base: Path, out: Path, **changed: Any) -> Any:
    return finetune(base, toy_dataset(), SETTINGS.model_copy(update=changed), out)


def on(monkeypatch: pytest.MonkeyPatch, device: str, **known: Any) -> None:
    monkeypatch.setattr(precision, "device_kind", lambda: device)
    for name, value in known.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)


@pytest.mark.parametrize(
    ("device", "capability", "matrices", "expected"),
    [
        ("cuda", (9, 0), False, "bf16"),
        ("cuda", (7, 5), False, "fp16"),  # it would only emulate bf16
        ("mps", None, False, "fp32"),
        ("cpu", None, False, "fp32"),
        ("cpu", None, True, "bf16"),
    ],
)
def test_a_machine_computes_with_what_it_is_quick_at(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: Any, matrices: bool, expected: str
) -> None:
    on(monkeypatch, device, get_device_capability=capability)
    monkeypatch.setattr(precision, "_multiplies_bf16", lambda: matrices)
    assert choose_precision("auto") == expected
    assert choose_precision("fp32") == "fp32"


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", "fp16"), ("mps", "fp16"), ("mps", "bf16"), ("cuda", "bf16")]
)
def test_what_a_machine_cannot_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: Any
) -> None:
    on(monkeypatch, device, is_bf16_supported=False)
    with pytest.raises(InvalidRequest, match=wanted) as caught:
        choose_precision(wanted)
    assert "Leave --precision out" in str(caught.value.hint)


def test_bf16_learns_and_leaves_weights_of_32_bits(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path / "out", precision="bf16", epochs=10)
    assert result.test > 90
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.float32
    }


def test_a_loss_that_is_no_number_ends_it_in_bf16_too(tmp_path: Path) -> None:
    huge = tiny_bert(tmp_path / "huge")
    tensors = load_file(huge / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"] *= math.inf
    save_file(tensors, huge / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="diverged: after step 1"):
        run(huge, tmp_path / "out", precision="bf16")


def test_computing_again_gives_the_same(base: Path, tmp_path: Path) -> None:
    for name, again in (("a", False), ("b", True)):
        run(base, tmp_path / name, epochs=1, gradient_checkpointing=again)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_container_has_the_cores_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.available_cores(tmp_path) == expected


def test_threads_are_as_many_as_cores_unless_somebody_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        monkeypatch.setattr(threads, "available_cores", lambda: 6)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        with threads.fitting_threads():
            assert torch.get_num_threads() == 8
        monkeypatch.delenv("OMP_NUM_THREADS")
        with threads.fitting_threads():
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)
