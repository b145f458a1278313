"""Folds: what is unseen together, and what is scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import InvalidRequest
from experiments.protocols.unseen import _dealt, _units, folds
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of


def test_over_all_folds_each_data_set_is_scored_once_unseen_and_once_seen(
    inputs: Inputs, tmp_path: Path
) -> None:
    lab = lab_of(inputs, tmp_path, folds=3, folds_run=3)
    found = list(folds(lab))
    for attribute in ("unseen", "also"):
        names = Counter(name for fold in found for name in getattr(fold, attribute))
        assert names == Counter(lab.data.names)
    for fold in found:
        assert set(fold.seen) == set(lab.data.names) - set(fold.unseen)
        assert set(fold.also) <= set(fold.seen)
    assert len({fold.line_seed(1) for fold in found}) == 3


def test_a_family_is_unseen_together(inputs: Inputs, tmp_path: Path) -> None:
    family = ("films", "winters", "one that is not here")
    lab = lab_of(inputs, tmp_path, folds=3, folds_run=3, families=(family,))
    assert [set(fold.unseen) for fold in folds(lab)] == [{"films", "winters"}, {"rooms"}]


def test_one_family_alone_has_no_folds(inputs: Inputs, tmp_path: Path) -> None:
    lab = lab_of(inputs, tmp_path, families=(("films", "rooms", "winters"),))
    with pytest.raises(InvalidRequest, match="two data sets"):
        list(folds(lab))


@given(
    names=st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=25, unique=True),
    count=st.integers(2, 6),
    cut=st.integers(0, 4),
)
def test_folds_are_about_as_long_as_each_other(names: list[str], count: int, cut: int) -> None:
    family = tuple(names[:cut])
    parts = _dealt(_units(names, [family]), count)
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert any(set(family) <= set(part) for part in parts)
    longest = max(len(part) for part in parts)
    assert longest <= max(len(family), min(len(part) for part in parts) + 1)
