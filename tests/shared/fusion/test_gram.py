"""The Gram matrix against dense float64, made at once and column by column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from coldfusion_shared.errors import InvalidRequest, NonFiniteWeights
from coldfusion_shared.fusion.executor import Serial, threads
from coldfusion_shared.fusion.gram import (
    Gram,
    TensorGram,
    cosines,
    extend_gram,
    gram_pass,
    norms,
    one_thread_products,
)
from coldfusion_shared.fusion.updates import Floats, Scratch, Term, Update, UpdateReader
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from coldfusion_shared.weights.header import TensorSpan
from tests.shared.checkpoints import Array, Tensors
from tests.shared.fusion.fusing import (
    Doubles,
    checkpoint,
    full_updates,
    matrix,
    random_deltas,
    random_tensors,
)

# Products of more than 16 are taken otherwise.
COUNTS = [1, 2, 5, 16, 20]
LARGE = {"a.weight": (CHUNK_ELEMENTS + 333,), "b.weight": (17, 19), "c.weight": (0, 3)}


def base_of(folder: Path, deltas: Sequence[Tensors]) -> Checkpoint:
    return checkpoint(folder, {name: np.zeros(array.shape) for name, array in deltas[0].items()})


def gram_of(folder: Path, deltas: Sequence[Tensors], workers: int = 1) -> Gram:
    base = base_of(folder, deltas)
    updates = full_updates(folder, base, deltas)
    return gram_pass(body(base.spans()), updates, threads(workers))


def large_deltas(count: int) -> list[dict[str, Array]]:
    return [random_tensors(place, 1e-3, LARGE) for place in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_products_are_the_dense_ones_by_tensor_and_in_all(count: int, tmp_path: Path) -> None:
    deltas = random_deltas(count, common=0.0)
    gram, dense = gram_of(tmp_path, deltas), matrix(deltas)
    scale = np.abs(dense @ dense.T).max()
    assert np.allclose(gram.total, dense @ dense.T, rtol=1e-12, atol=1e-12 * scale)
    assert list(gram.tensors) == list(deltas[0])
    for name, tensor in gram.tensors.items():
        rows = matrix([{name: delta[name]} for delta in deltas])
        assert np.allclose(tensor.products, rows @ rows.T, rtol=1e-12, atol=1e-12 * scale)
        assert tensor.elements == rows.shape[1]
    assert gram.ids == tuple(f"c{place}" for place in range(count))


def test_products_over_several_chunks_are_the_dense_ones(tmp_path: Path) -> None:
    deltas = large_deltas(5)
    gram, dense = gram_of(tmp_path, deltas), matrix(deltas)
    wanted = dense @ dense.T
    assert np.allclose(gram.total, wanted, rtol=1e-12, atol=1e-12 * wanted.max())
    assert gram.whole.elements == dense.shape[1]
    assert not gram.tensors["c.weight"].products.any()


@pytest.mark.parametrize("count", COUNTS)
def test_norms_cosines_and_distances_follow(count: int, tmp_path: Path) -> None:
    deltas = random_deltas(count)
    gram, dense = gram_of(tmp_path, deltas), matrix(deltas)
    lengths = np.linalg.norm(dense, axis=1)
    assert gram.norms == pytest.approx(lengths, rel=1e-12)
    assert np.allclose(gram.cosines, dense @ dense.T / np.outer(lengths, lengths), rtol=1e-12)
    wanted = ((dense[:, None] - dense[None]) ** 2).sum(axis=2)
    assert np.allclose(gram.squared_distances, wanted, rtol=1e-10, atol=1e-12 * wanted.max())
    assert np.array_equal(np.diag(gram.squared_distances), np.zeros(count))


def test_cosines_stay_within_one_and_are_zero_with_nothing() -> None:
    row = np.array([0.1, 0.3])
    products = np.array(
        [[row @ row, 3 * row @ row, 0], [3 * row @ row, 9 * row @ row, 0], [0, 0, 0]]
    )
    found = cosines(products * (1 + 1e-16))
    assert np.abs(found).max() <= 1
    assert np.array_equal(found[2], [0, 0, 1])
    assert norms(products)[2] == 0


def sparse_deltas(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(3)
    deltas = random_deltas(count)
    for place, delta in enumerate(deltas):
        for array in delta.values():
            array[rng.random(array.shape) < place / count] = 0
    return deltas


@pytest.mark.parametrize("count", [1, 3, 130])
def test_zeros_and_agreeing_signs_are_counted(count: int, tmp_path: Path) -> None:
    # From 128 updates on, a sum of signs no longer fits 8 bits.
    deltas = sparse_deltas(count)
    gram, dense = gram_of(tmp_path, deltas), matrix(deltas)
    assert np.array_equal(gram.whole.nonzero, np.count_nonzero(dense, axis=1))
    assert gram.sparsity == pytest.approx(np.mean(dense == 0, axis=1))
    assert gram.whole.agreement == np.abs(np.sign(dense).sum(axis=0)).sum()
    wanted = np.abs(np.sign(dense).sum(axis=0)).sum() / np.count_nonzero(dense)
    assert gram.sign_agreement == pytest.approx(wanted)


def test_signs_that_all_agree_and_signs_that_cancel(tmp_path: Path) -> None:
    (delta,) = random_deltas(1)
    opposite = {name: -array for name, array in delta.items()}
    assert gram_of(tmp_path, [delta] * 200).sign_agreement == 1
    assert gram_of(tmp_path, [delta, opposite]).sign_agreement == 0


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_change_no_bit(workers: int, tmp_path: Path) -> None:
    deltas = large_deltas(5)
    alone, shared = gram_of(tmp_path, deltas), gram_of(tmp_path, deltas, workers)
    assert alone.total.tobytes() == shared.total.tobytes()
    for name, tensor in alone.tensors.items():
        assert tensor.products.tobytes() == shared.tensors[name].products.tobytes()
        assert np.array_equal(tensor.nonzero, shared.tensors[name].nonzero)
        assert tensor.agreement == shared.tensors[name].agreement


@dataclass(frozen=True)
class Counting:
    """Counts how often each value is read."""

    reader: UpdateReader
    reads: Counter[tuple[str, int]] = field(default_factory=Counter)

    def read(self, span: TensorSpan, start: int, stop: int, out: Floats, scratch: Scratch) -> None:
        self.reads.update((span.name, place) for place in range(start, stop))
        self.reader.read(span, start, stop, out, scratch)

    def terms(self, span: TensorSpan) -> list[Term] | None:
        return self.reader.terms(span)


def counted(updates: Sequence[Update]) -> tuple[list[Update], list[Counting]]:
    readers = [Counting(update.reader) for update in updates]
    pairs = zip(updates, readers, strict=True)
    return [replace(update, reader=reader) for update, reader in pairs], readers


def assert_all_read_once(readers: Sequence[Counting], elements: int) -> None:
    for reader in readers:
        assert len(reader.reads) == elements
        assert set(reader.reads.values()) == {1}


def test_a_pass_reads_each_value_once(tmp_path: Path) -> None:
    deltas = large_deltas(3)
    base = base_of(tmp_path, deltas)
    updates, readers = counted(full_updates(tmp_path, base, deltas))
    gram_pass(body(base.spans()), updates, Serial())
    assert_all_read_once(readers, matrix(deltas).shape[1])


def assert_same(one: TensorGram, other: TensorGram) -> None:
    assert np.allclose(one.products, other.products, rtol=1e-12, atol=1e-20)
    assert np.array_equal(one.nonzero, other.nonzero)
    assert (one.agreement, one.elements) == (other.agreement, other.elements)


def test_columns_that_are_added_one_by_one_give_the_same(tmp_path: Path) -> None:
    deltas = sparse_deltas(6)
    base = base_of(tmp_path, deltas)
    spans, updates = body(base.spans()), full_updates(tmp_path, base, deltas)
    grown = gram_pass(spans, updates[:1], Serial())
    for count in range(2, 7):
        grown = extend_gram(grown, spans, updates[:count], Serial())
        whole = gram_pass(spans, updates[:count], Serial())
        assert grown.ids == whole.ids
        assert_same(grown.whole, whole.whole)
        for name, tensor in whole.tensors.items():
            assert_same(grown.tensors[name], tensor)


def test_a_new_column_reads_each_value_once_and_changes_no_old_one(tmp_path: Path) -> None:
    deltas = large_deltas(3)
    base = base_of(tmp_path, deltas)
    spans = body(base.spans())
    updates, readers = counted(full_updates(tmp_path, base, deltas))
    before = gram_pass(spans, full_updates(tmp_path, base, deltas[:2]), Serial())
    kept = {name: tensor.products.copy() for name, tensor in before.tensors.items()}
    extend_gram(before, spans, updates, Serial())
    assert_all_read_once(readers, matrix(deltas).shape[1])
    assert all(np.array_equal(before.tensors[name].products, kept[name]) for name in kept)


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_change_no_bit_of_a_new_column(workers: int, tmp_path: Path) -> None:
    deltas = large_deltas(4)
    base = base_of(tmp_path, deltas)
    spans, updates = body(base.spans()), full_updates(tmp_path, base, deltas)
    before = gram_pass(spans, updates[:3], Serial())
    alone = extend_gram(before, spans, updates, Serial())
    shared = extend_gram(before, spans, updates, threads(workers))
    assert alone.total.tobytes() == shared.total.tobytes()


def test_a_gram_matrix_of_other_contributions_is_not_extended(tmp_path: Path) -> None:
    deltas = random_deltas(3)
    base = base_of(tmp_path, deltas)
    spans, updates = body(base.spans()), full_updates(tmp_path, base, deltas)
    gram = gram_pass(spans, updates[:1], Serial())
    with pytest.raises(InvalidRequest, match="not that of the contributions"):
        extend_gram(gram, spans, updates, Serial())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_not_finite_is_named(value: float, workers: int, tmp_path: Path) -> None:
    deltas = large_deltas(3)
    deltas[1]["a.weight"][-1] = value
    with pytest.raises(NonFiniteWeights, match="c1.*a.weight") as caught:
        gram_of(tmp_path, deltas, workers)
    assert caught.value.tensors == ("a.weight",)


def test_a_new_column_that_is_not_finite_is_named(tmp_path: Path) -> None:
    deltas = random_deltas(3)
    deltas[2]["layer.bias"][4] = np.nan
    base = base_of(tmp_path, deltas)
    spans, updates = body(base.spans()), full_updates(tmp_path, base, deltas)
    before = gram_pass(spans, updates[:2], Serial())
    with pytest.raises(NonFiniteWeights, match="c2.*layer.bias"):
        extend_gram(before, spans, updates, Serial())


def test_an_update_beyond_float32_is_named_and_no_warning(tmp_path: Path) -> None:
    largest = np.full(3, 3e38, np.float32)
    base = checkpoint(tmp_path, {"w": -largest})
    updates = full_updates(tmp_path, base, [{"w": largest}])
    with pytest.raises(NonFiniteWeights, match="c0.*'w'"):
        gram_pass(body(base.spans()), updates, Serial())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_updates_have_their_norms(scale: float, tmp_path: Path) -> None:
    deltas = random_deltas(3, scale=scale)
    found: Doubles = gram_of(tmp_path, deltas).norms
    assert found == pytest.approx(np.linalg.norm(matrix(deltas), axis=1), rel=1e-12)


def test_progress_is_told_all_bytes(tmp_path: Path) -> None:
    deltas = large_deltas(3)
    base = checkpoint(tmp_path, {name: np.zeros_like(array) for name, array in deltas[0].items()})
    told: list[int] = []
    gram_pass(body(base.spans()), full_updates(tmp_path, base, deltas), Serial(), told.append)
    assert sum(told) == 3 * 4 * matrix(deltas).shape[1]


def test_products_keep_to_one_thread_until_the_last_fuse_has_ended() -> None:
    def blas_threads() -> set[int]:
        return {
            pool["num_threads"]
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"
        }

    with threadpoolctl.threadpool_limits(2, "blas"):
        before = blas_threads()
        with one_thread_products:
            with one_thread_products:
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == before
