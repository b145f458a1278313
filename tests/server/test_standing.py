"""How each contribution lay to the others of its round: by inner products, or by sketches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coldfusion_server.services.closing import close_due
from coldfusion_server.services.standing import Standing, by_products, by_vectors
from coldfusion_shared.screening.check import shown
from tests.server.backends import only_sqlite
from tests.server.repository import MODEL, Repository, body_of, fix_sketches, tiny_tensors
from tests.server.test_round_way import accepted
from tests.shared.checkpoints import Array


def test_inner_products_and_vectors_tell_the_same() -> None:
    rng = np.random.default_rng(1)
    vectors, weights = rng.standard_normal((5, 40)), rng.uniform(0.1, 1, 5)
    found = by_vectors(vectors, weights)
    again = by_products(vectors @ vectors.T, weights)
    mean = weights @ vectors
    norms = np.linalg.norm(vectors, axis=1)
    for place, (one, other) in enumerate(zip(found, again, strict=True)):
        exact = vectors[place] @ mean / norms[place] / np.linalg.norm(mean)
        assert one.cosine == pytest.approx(exact) == pytest.approx(other.cosine)
        assert one.norm_ratio == pytest.approx(norms[place] / np.median(norms))
        assert one.norm_ratio == pytest.approx(other.norm_ratio)


def test_of_what_is_zero_there_is_no_cosine() -> None:
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    first, second, _ = by_vectors(vectors, np.full(3, 1 / 3))
    assert (first, second) == (Standing(None, 0.0), Standing(1.0, 1.0))
    # Two that cancel each other have no mean to lie to.
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert by_vectors(opposite, np.full(2, 0.5)) == [Standing(None, 1.0)] * 2
    assert by_vectors(np.zeros((2, 2)), np.full(2, 0.5)) == [Standing(None, None)] * 2


def flat(body: dict[str, Array], base: dict[str, Array]) -> Any:
    return np.concatenate([(body[name] - base[name]).ravel() for name in sorted(body)]).astype(
        float
    )


@only_sqlite
@pytest.mark.parametrize("method", ["mean", "norm_clipped_mean"])
def test_a_receipt_tells_it_with_or_without_a_gram_matrix(empty: Repository, method: str) -> None:
    empty.model(min_contributions=3, method=method)
    fix_sketches(empty)
    ids = accepted(empty, [1, 2, 3])
    close_due(empty.ctx)
    empty.work()
    base = tiny_tensors()
    vectors = np.array([flat(body_of(base, seed), base) for seed in (1, 2, 3)])
    receipts = [empty.contributor().receipt(one) for one in ids]
    exact = by_vectors(vectors, np.array([one["weight"] for one in receipts]))
    # All values of so small a model have buckets of their own, or share them with few.
    for told, known in zip(receipts, exact, strict=True):
        assert told["cosine"] == pytest.approx(known.cosine, abs=0.05)
        assert told["norm_ratio"] == pytest.approx(known.norm_ratio, rel=0.05)


@only_sqlite
def test_what_a_round_leaves_is_told_nothing_of_its_fuse(empty: Repository) -> None:
    gate = {"kind": "norm", "max_relative_norm": 1e-9}
    empty.model(min_contributions=2, gate=gate)
    (first, second) = accepted(empty, [1, 2])
    close_due(empty.ctx)
    empty.work()
    # Of a rejected round it is known, too: one of them may be the culprit.
    assert empty.contributor().receipt(first)["cosine"] is not None
    client = empty.client(empty.token("max", "maintainer"))
    again = client.post(f"/v1/models/{MODEL}/rounds/1/again", json={"without": [second]})
    assert again.status_code == 200, again.text
    told = empty.contributor().receipt(first)
    assert (told["state"], told["cosine"], told["norm_ratio"]) == ("accepted", None, None)


@only_sqlite
@pytest.mark.parametrize("method", ["mean", "norm_clipped_mean"])
def test_a_receipt_tells_no_more_digits_than_a_finding(empty: Repository, method: str) -> None:
    empty.model(min_contributions=3, method=method)
    ids = accepted(empty, [1, 2, 3])
    close_due(empty.ctx)
    empty.work()
    for receipt in (empty.contributor().receipt(one) for one in ids):
        for number in (receipt["cosine"], receipt["norm_ratio"]):
            assert number == shown(number)
