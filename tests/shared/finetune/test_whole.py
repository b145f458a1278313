from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.errors import BadModel
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.finetune.whole import require_whole
from coldfusion_shared.tasks import tasks
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.token_classification import TokenClassification
from tests.tiny_models import ARCHITECTURES, tiny_model

WORDS = Split({"tokens": (("a", "film"),) * 8, "tags": ((0, 1),) * 8}, ("O", "B-ART"))


class Careless(TokenClassification):
    """Somebody's own task that takes any base."""

    name = "careless"

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        return load_model("AutoModelForTokenClassification", base)


def test_a_model_without_a_part_of_the_base_is_refused_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks._entries, "careless", Careless())
    base = tiny_model(tmp_path / "base", "t5")
    dataset = TextDataset("films", "careless", ("O", "B-ART"), WORDS, WORDS, WORDS)
    steps: list[int] = []
    with pytest.raises(BadModel, match=r"T5ForTokenClassification leaves out \d+ .* decoder") as no:
        finetune(
            base, dataset, FinetuneSettings(max_steps=1), tmp_path / "out",
            lambda done, total, loss: steps.append(done),
        )  # fmt: skip
    assert all("decoder" in name for name in no.value.tensors)
    assert steps == [] and [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("head", ["", "ForSequenceClassification", "ForQuestionAnswering"])
def test_heads_leave_nothing_out_but_poolers(tmp_path: Path, kind: str, head: str) -> None:
    base = tiny_model(tmp_path, kind)
    require_whole(load_model(f"AutoModel{head}", base), base)


def test_a_tied_tensor_may_have_any_of_its_names(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "t5")
    model = load_model("AutoModelForSeq2SeqLM", base)
    weights = load_file(base / "model.safetensors")
    weights["twin.weight"] = weights["shared.weight"].clone()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    require_whole(model, base)
    weights["twin.weight"][0, 0] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match="leaves out 1 of the base's tensors, such as twin.weight"):
        require_whole(model, base)
