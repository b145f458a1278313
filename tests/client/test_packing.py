"""What is sent of a finetuned model, and what happens if the encoding loses too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_client.bases import find_base
from coldfusion_client.forms import Form
from coldfusion_client.packing import is_adapter, pack
from coldfusion_client.push import push
from coldfusion_client.sizes import adapter_bytes, body_bytes
from coldfusion_client.source import Source
from coldfusion_shared import errors
from coldfusion_shared.finetune.settings import FinetuneSettings
from tests.client.helpers import NAMES, Notes, model_files, weights
from tests.client.repository import MODEL, Repository
from tests.shared.checkpoints import file_bytes, read_file

Parameters = dict[str, dict[str, Any]]

ALL = ["delta-sign", "delta-sparse", "delta-int8", "delta", "full"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "finetuned"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights(0.5, prefix="bert.", head=True))
    return folder


def test_an_encoding_is_written_and_told(source: Source, folder: Path, notes: Notes) -> None:
    base = find_base(source, MODEL, "v0")
    package = pack(source, folder, base, base, Form(["delta-int8"]), folder.parent / "out")
    assert list(package.files) == ["update.safetensors"]
    # The same value everywhere is exact in eight bits.
    assert package.relative_error == pytest.approx(0, abs=1e-6)
    assert any("Encoded as delta-int8: " in said for said in notes.said)
    assert [path.name for path in (folder.parent / "out").iterdir()] == ["update.safetensors"]


def test_what_scores_much_worse_is_followed_by_what_is_more_exact(
    source: Source, folder: Path, notes: Notes
) -> None:
    base = find_base(source, MODEL, "v0")
    rng = np.random.default_rng(0)
    tensors = {
        name: (values + rng.standard_normal(values.shape)).astype(np.float32)
        for name, values in read_file((folder / "model.safetensors").read_bytes()).items()
    }
    (folder / "model.safetensors").write_bytes(file_bytes(tensors))
    scores = iter([70.0, 78.9, 79.0])
    seen: list[Path] = []

    def score(model: Path) -> float:
        seen.append(model)
        decoded = read_file((model / "model.safetensors").read_bytes())
        assert decoded.keys() == tensors.keys()
        assert (decoded["classifier.weight"] == tensors["classifier.weight"]).all()
        return next(scores)

    out = folder.parent / "out"
    package = pack(source, folder, base, base, Form(ALL), out, score=score, reference=80.0)
    assert (package.encoding, package.score) == ("delta-int8", 79.0)
    assert len(seen) == 3
    assert notes.said.count("That is too much; the next encoding loses less.") == 2
    assert [path.name for path in out.iterdir()] == ["update.safetensors"]


def test_the_last_one_is_taken_whatever_it_loses(source: Source, folder: Path) -> None:
    base = find_base(source, MODEL, "v0")
    form, out = Form(["delta-sign"]), folder.parent / "out"
    package = pack(source, folder, base, base, form, out, score=lambda _: 0.0, reference=80.0)
    assert package.encoding == "delta-sign"


def test_an_update_onto_another_base_is_the_same_update(
    source: Source, folder: Path, repository: Repository
) -> None:
    old = find_base(source, MODEL, "v0")
    repository.publish(model_files(1))
    new = find_base(source, MODEL, "v1")
    own = pack(source, folder, old, old, Form(["delta"]), folder.parent / "a")
    moved = pack(source, folder, old, new, Form(["delta"]), folder.parent / "b")
    one, other = (p.files["update.safetensors"].read_bytes() for p in (own, moved))
    assert one == other


def test_a_frozen_layer_that_changed_is_not_sent(source: Source, folder: Path) -> None:
    base = find_base(source, MODEL, "v0")
    frozen = Form(["delta"], frozen=(next(iter(NAMES)),))
    with pytest.raises(errors.ContributionRejected, match="was to be frozen"):
        pack(source, folder, base, base, frozen, folder.parent / "out")


def test_a_model_that_learnt_nothing_is_not_sent(source: Source, folder: Path) -> None:
    base = find_base(source, MODEL, "v0")
    (folder / "model.safetensors").write_bytes(weights(0.0, prefix="bert.", head=True))
    with pytest.raises(errors.ContributionRejected, match="identical to the base"):
        pack(source, folder, base, base, Form(["delta-int8"]), folder.parent / "out")


def test_the_policy_says_what_is_screened_here_too(
    source: Source, folder: Path, notes: Notes
) -> None:
    base, out = find_base(source, MODEL, "v0"), folder.parent / "out"
    strict: Parameters = {
        "magnitude": {"largest": 0.1, "action": "reject"},
        "taste": {"of": "a newer server"},
    }
    with pytest.raises(errors.ContributionRejected, match="a value moved by 0.5"):
        pack(source, folder, base, base, Form(["delta"], screening=strict), out)
    assert not list(out.iterdir())
    held: Parameters = {"magnitude": {"largest": 0.1}}
    assert pack(source, folder, base, base, Form(["delta"], screening=held), out).files
    assert any("will wait for a maintainer's decision: a value moved" in s for s in notes.warned)


def test_adapters_are_known_by_their_files(tmp_path: Path) -> None:
    assert not is_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert is_adapter(tmp_path)
    # Some scripts save it beside the adapter.
    (tmp_path / "config.json").write_text("{}")
    assert is_adapter(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not is_adapter(tmp_path)


def test_sizes_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(
        file_bytes(read_file(model_files()["model.safetensors"]))
    )
    whole = body_bytes(tmp_path)
    assert whole == 4 * sum(a.size for a in read_file(model_files()["model.safetensors"]).values())
    assert adapter_bytes(tmp_path, FinetuneSettings(lora=True, lora_rank=1)) > 0


def adapter(folder: Path, **config: object) -> Path:
    """Write an adapter as peft does, with a head and with more said than is anybody's business."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    names = {
        "encoder.lora_A.weight": (2, 4),
        "encoder.lora_B.weight": (4, 2),
        "classifier.weight": (2, 4),
    }
    tensors = {
        f"base_model.model.{name}": rng.standard_normal(shape).astype(np.float32)
        for name, shape in names.items()
    }
    (folder / "adapter_model.safetensors").write_bytes(file_bytes(tensors))
    said = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["encoder"],
        "modules_to_save": ["classifier"], "base_model_name_or_path": "/home/ann/patients",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps({**said, **config}))
    return folder


def test_an_adapter_travels_without_its_head_and_without_paths(
    source: Source, tmp_path: Path
) -> None:
    base = find_base(source, MODEL, "v0")
    folder = adapter(tmp_path / "adapter")
    package = pack(source, folder, base, base, Form(["lora"], adapter=folder), tmp_path / "out")
    tensors = read_file(package.files["adapter_model.safetensors"].read_bytes())
    assert sorted(tensors) == [
        "base_model.model.encoder.lora_A.weight", "base_model.model.encoder.lora_B.weight",
    ]  # fmt: skip
    config = package.files["adapter_config.json"].read_text()
    assert "ann" not in config and "classifier" not in config
    assert json.loads(config)["target_modules"] == ["encoder"]


def test_an_adapter_that_depends_on_its_base_does_not_go_onto_another(
    source: Source, tmp_path: Path, repository: Repository
) -> None:
    old = find_base(source, MODEL, "v0")
    repository.publish(model_files(1))
    new = find_base(source, MODEL, "v1")
    plain = adapter(tmp_path / "plain")
    package = pack(source, plain, old, new, Form(["lora"], adapter=plain), tmp_path / "a")
    assert package.encoding == "lora"
    whole = adapter(tmp_path / "whole", modules_to_save=["pooler"])
    tensors = read_file((whole / "adapter_model.safetensors").read_bytes())
    tensors["base_model.model.pooler.weight"] = np.ones((2, 2), np.float32)
    (whole / "adapter_model.safetensors").write_bytes(file_bytes(tensors))
    with pytest.raises(errors.InvalidRequest, match="something else on a newer base") as caught:
        pack(source, whole, old, new, Form(["lora"], adapter=whole), tmp_path / "b")
    assert caught.value.hint is not None and "--base v0 --onto latest" in caught.value.hint


def test_weights_in_place_of_an_adapter_are_explained(
    source: Source, folder: Path, tmp_path: Path, repository: Repository, notes: Notes
) -> None:
    old = find_base(source, MODEL, "v0")
    repository.publish(model_files(1))
    new = find_base(source, MODEL, "v1")
    whole = adapter(tmp_path / "whole", modules_to_save=["pooler"])
    tensors = read_file((whole / "adapter_model.safetensors").read_bytes())
    tensors["base_model.model.pooler.weight"] = np.ones((2, 2), np.float32)
    (whole / "adapter_model.safetensors").write_bytes(file_bytes(tensors))
    form = Form(["full"], adapter=whole)
    notes.said.clear()
    assert pack(source, folder, old, old, form, tmp_path / "a").encoding == "lora"
    assert not notes.said
    assert pack(source, folder, old, new, form, tmp_path / "b").encoding == "full"
    assert notes.said[0].startswith("The adapter learnt on v0 means something else on v1: ")


def test_an_adapter_of_an_older_peft_is_told_how_to_convert(
    source: Source, tmp_path: Path, repository: Repository
) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(errors.BadModel, match="no adapter_model.safetensors but adapter_") as found:
        push(source, MODEL, folder, "v0", onto_latest=False, wait=True)
    assert found.value.hint is not None and "PeftModel.from_pretrained(" in found.value.hint
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(errors.BadModel, match=r"no adapter_model\.safetensors\.$"):
        push(source, MODEL, folder, "v0", onto_latest=False, wait=True)
    # No base was brought for that.
    assert not repository.seen("GET", "/files/")


@pytest.mark.parametrize("config", ["{", "", "[]", '{"peft_type": "LORA"}', "\x00"])
def test_a_broken_configuration_is_to_be_saved_again(
    source: Source, tmp_path: Path, repository: Repository, config: str
) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(errors.BadModel, match=r"adapter_config\.json") as found:
        push(source, MODEL, folder, "v0", onto_latest=False, wait=True)
    assert found.value.hint is not None and "Save the adapter" in found.value.hint
    assert "--lr" not in found.value.hint
    assert not repository.seen("GET", "/files/")
