"""Screening: what each check lets pass and what it stops."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.screening import check_parameters, discover
from coldfusion_shared.screening.screen import Encoded, Screening, screen
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes, raw_file, write_file

BASE: dict[str, Array] = {
    "embeddings.weight": np.linspace(-1, 1, CHUNK_ELEMENTS + 7, dtype=np.float32),
    "embeddings.position_ids": np.arange(5),
    "layer.weight": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "empty": np.ones((0, 2), np.float32),
    "classifier.weight": np.ones(2, np.float32),
}
BODY = ("embeddings.weight", "layer.weight", "empty")


def good() -> dict[str, Array]:
    """Return a contribution that nothing speaks against."""
    return {name: BASE[name] + np.float32(1e-3) for name in BODY}


def screened(folder: Path, raw: bytes, base: dict[str, Array] | None = None) -> Screening:
    (folder / "upload").write_bytes(raw)
    write_file(folder / "base.safetensors", base or BASE)
    with Checkpoint.from_file(folder / "base.safetensors") as opened:
        source = FileSource(folder / "upload")
        try:
            return screen(Encoded("full", {"model.safetensors": source}), opened)
        finally:
            source.close()


def full(path: Path) -> Encoded:
    return Encoded("full", {"model.safetensors": FileSource(path)})


def verdicts(outcome: Screening) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in outcome.findings}


def test_a_good_contribution_passes_every_check(tmp_path: Path) -> None:
    outcome = screened(tmp_path, file_bytes(good()))
    usual = [name for name, one in check_parameters({}).items() if getattr(one, "enabled", True)]
    assert verdicts(outcome) == dict.fromkeys(["format", *usual], "pass")
    assert outcome.rejections == []
    assert outcome.digest is not None


def test_the_known_checks_are_found() -> None:
    assert {"changed", "finite", "schema", "copies", "norm", "direction"} <= set(discover())


def test_what_is_no_safetensors_is_rejected_by_format_alone(tmp_path: Path) -> None:
    outcome = screened(tmp_path, b"\x80\x04pickle, in fact")
    assert verdicts(outcome) == {"format": "reject"}
    assert outcome.digest is None


def test_an_empty_file_is_rejected(tmp_path: Path) -> None:
    assert verdicts(screened(tmp_path, b"")) == {"format": "reject"}


@pytest.mark.parametrize(
    "change",
    [
        {"layer.weight": None},
        {"unknown.weight": np.ones(1, np.float32)},
        {"layer.weight": np.ones((4, 3), np.float32)},
        {"layer.weight": np.ones((3, 4), np.float16)},
        {"layer.weight": np.ones((3, 4), np.float64)},
        {"layer.weight": np.ones((3, 4), np.int32)},
        {"layer.weight": np.ones(12, np.float32)},
    ],
)
def test_another_schema_is_rejected_before_values_are_read(
    change: dict[str, Array | None], tmp_path: Path
) -> None:
    tensors = {n: a for n, a in {**good(), **change}.items() if a is not None}
    outcome = screened(tmp_path, file_bytes(tensors))
    assert verdicts(outcome).items() >= {"schema": "reject"}.items()
    assert outcome.rejections[0].tensors == list(change)
    assert outcome.digest is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, CHUNK_ELEMENTS, -1])
def test_one_value_that_is_no_number_is_rejected(value: float, place: int, tmp_path: Path) -> None:
    tensors = good()
    tensors["embeddings.weight"][place] = value
    outcome = screened(tmp_path, file_bytes(tensors))
    assert verdicts(outcome)["finite"] == "reject"
    assert outcome.rejections[0].tensors == ["embeddings.weight"]


def test_not_a_number_in_bfloat16_is_rejected(tmp_path: Path) -> None:
    base = {"w": np.ones(4, BFLOAT16)}
    bad = {"w": np.array([1, 2, np.nan, 4], BFLOAT16)}
    assert verdicts(screened(tmp_path, file_bytes(bad), base))["finite"] == "reject"


def test_float32_made_from_a_bfloat16_base_passes(tmp_path: Path) -> None:
    base = {"w": np.ones(4, BFLOAT16)}
    outcome = screened(tmp_path, file_bytes({"w": np.full(4, 1.0001, np.float32)}), base)
    assert outcome.rejections == []


def test_the_base_itself_is_rejected(tmp_path: Path) -> None:
    outcome = screened(tmp_path, file_bytes({name: BASE[name] for name in BODY}))
    assert verdicts(outcome)["changed"] == "reject"


def test_the_base_in_a_larger_dtype_is_still_the_base(tmp_path: Path) -> None:
    base = {"w": np.linspace(0, 1, 9).astype(BFLOAT16)}
    outcome = screened(tmp_path, file_bytes({"w": base["w"].astype(np.float32)}), base)
    assert verdicts(outcome)["changed"] == "reject"


def test_a_changed_head_alone_changes_nothing(tmp_path: Path) -> None:
    tensors = {name: BASE[name] for name in BODY}
    outcome = screened(
        tmp_path, file_bytes({**tensors, "classifier.weight": np.zeros(2, np.float32)})
    )
    assert verdicts(outcome)["changed"] == "reject"


def test_one_changed_value_is_enough(tmp_path: Path) -> None:
    tensors = {name: BASE[name].copy() for name in BODY}
    tensors["layer.weight"][2, 3] += 1e-6
    assert screened(tmp_path, file_bytes(tensors)).rejections == []


def test_many_faulty_tensors_are_counted_and_ten_named(tmp_path: Path) -> None:
    base: dict[str, Array] = {f"t{i:02}": np.ones(2, np.float32) for i in range(30)}
    bad: dict[str, Array] = {name: np.full(2, np.nan, np.float32) for name in base}
    (finding,) = screened(tmp_path, file_bytes(bad), base).rejections
    assert "t00 and 29 others" in finding.message
    assert len(finding.tensors) == 10


@given(st.permutations([*BODY, "classifier.weight"]), st.none() | st.just({"format": "np"}))
def test_the_digest_is_the_tensors_alone(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[str],
    metadata: dict[str, str] | None,
) -> None:
    folder = tmp_path_factory.mktemp("digest")
    tensors: dict[str, Array] = {**good(), "classifier.weight": np.zeros(2, np.float32)}
    shuffled = {name: tensors[name] for name in order}
    plain = screened(folder, file_bytes(good()))
    assert screened(folder, file_bytes(shuffled, metadata)).digest == plain.digest


def test_spaces_in_the_header_do_not_change_the_digest(tmp_path: Path) -> None:
    raw = file_bytes(good())
    length = int.from_bytes(raw[:8], "little")
    padded = raw_file(raw[8 : 8 + length] + b"   ", raw[8 + length :])
    assert screened(tmp_path, padded).digest == screened(tmp_path, raw).digest


def test_the_digest_sees_every_value(tmp_path: Path) -> None:
    digests = {screened(tmp_path, file_bytes(good())).digest}
    for name, place in [("embeddings.weight", 0), ("embeddings.weight", -1), ("layer.weight", 3)]:
        tensors = good()
        tensors[name].reshape(-1)[place] += 1
        digests.add(screened(tmp_path, file_bytes(tensors)).digest)
    assert len(digests) == 4


def test_values_swapped_between_tensors_change_the_digest(tmp_path: Path) -> None:
    base: dict[str, Array] = {n: np.zeros(2, np.float32) for n in ("a", "b")}
    one: dict[str, Array] = {"a": np.ones(2, np.float32), "b": np.full(2, 2, np.float32)}
    other: dict[str, Array] = {"a": one["b"], "b": one["a"]}
    first, second = (screened(tmp_path, file_bytes(t), base).digest for t in (one, other))
    assert first != second


def test_progress_counts_every_byte_of_the_body(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(file_bytes(good()))
    write_file(tmp_path / "base.safetensors", BASE)
    seen: list[int] = []
    with Checkpoint.from_file(tmp_path / "base.safetensors") as base:
        screen(full(tmp_path / "upload"), base, seen.append)
    assert sum(seen) == sum(BASE[name].nbytes for name in BODY)


def test_screening_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    base: dict[str, Array] = {f"t{i}": np.zeros(2**21, np.float32) for i in range(5)}
    write_file(tmp_path / "base.safetensors", base)
    write_file(tmp_path / "upload", {name: a + np.float32(1) for name, a in base.items()})
    del base
    with Checkpoint.from_file(tmp_path / "base.safetensors") as opened:
        tracemalloc.start()
        try:
            assert screen(full(tmp_path / "upload"), opened).rejections == []
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * 2**20
