"""What the tests of the experiments share: a base, data, and what is made of them."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.experiments.small import tiny_base, tiny_data


@dataclass(frozen=True)
class Inputs:
    """Folders of a base and of data sets, and a cache that tests share."""

    base: Path
    data: Path
    cache: Path


@pytest.fixture(scope="session", autouse=True)
def _looked_through_once() -> None:
    """Every training looks for garbage; what is imported for good need not be looked through."""
    import matplotlib.figure
    import sklearn.linear_model
    import transformers.trainer

    assert matplotlib.figure and sklearn.linear_model and transformers.trainer
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("experiments")
    return Inputs(tiny_base(folder / "base"), tiny_data(folder / "data"), folder / "cache")
