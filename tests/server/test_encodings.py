"""Encoded contributions on their whole way: declared, screened, fused with all others."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import discover, open_update, weights_encoding
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.server.gated import policy
from tests.server.repository import (
    ANY_UPDATE,
    MODEL,
    Contributor,
    Repository,
    body_file,
    body_of,
    repository,
    tiny_tensors,
)
from tests.server.test_cli import Run, run
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes, read_file, write_file
from tests.shared.weights.codecs.encoded import ALL, whole

__all__ = ["run"]

Files = Mapping[str, bytes]

MATRIX = "encoder.layer.0.dense.weight"
NOTHING_TRAINED = ["embeddings", "pooler", "encoder.layer.0.dense.bias"]


@pytest.fixture(autouse=True)
def many(repo: Repository) -> None:
    """Let no round close by itself."""
    put = repo.client(repo.token("first", "maintainer")).put
    policy = {"min_contributions": 100, "screening": ANY_UPDATE}
    assert put(f"/v1/models/{MODEL}/policy", json=policy).status_code == 200


def encoded(folder: Path, name: str, seed: int) -> Files:
    """Return the files of a finetuning that `seed` decides, in an encoding."""
    base = Checkpoint.from_file(write_file(folder / "b.safetensors", tiny_tensors()))
    tuned = body_of(tiny_tensors(), seed)
    finetuned = Checkpoint.from_file(write_file(folder / "t.safetensors", tuned))
    kind = weights_encoding(name)
    kind.encode(finetuned.tensors, base.tensors, folder)
    return {file: (folder / file).read_bytes() for file in kind.files}


def adapter(seed: int = 5, rank: int = 2, **config: Any) -> Files:
    """Return the files of an adapter of the encoder's one matrix."""
    rng = np.random.default_rng(seed)
    name = f"base_model.model.{MATRIX.removesuffix('.weight')}"
    tensors: dict[str, Array] = {
        f"{name}.lora_A.weight": rng.standard_normal((rank, 8)).astype(np.float32),
        f"{name}.lora_B.weight": rng.standard_normal((8, rank)).astype(np.float32) / 100,
    }
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "init_lora_weights": True}
    return {
        ADAPTER_WEIGHTS: file_bytes(tensors),
        ADAPTER_CONFIG: json.dumps({**settings, **config}).encode(),
    }


def declare(person: Contributor, name: str, files: Files, **more: Any) -> Any:
    listed = [
        {"path": path, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        for path, raw in files.items()
    ]
    return person.client.post(
        f"/v1/models/{MODEL}/contributions",
        json={"base": "v0", "encoding": name, "files": listed, **more},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )


def contribute(person: Contributor, name: str, files: Files, **more: Any) -> str:
    """Send `files` and return the contribution's id."""
    answer = declare(person, name, files, **more)
    assert answer.status_code == 201, answer.text
    for file in answer.json()["upload"]["files"]:
        person.upload({"files": [file]}, files[file["path"]])
    identity = str(answer.json()["contribution"]["id"])
    assert person.complete(identity).status_code == 200
    return identity


def screened(repo: Repository, name: str, files: Files, **more: Any) -> Any:
    person = repo.contributor()
    identity = contribute(person, name, files, **more)
    repo.work()
    return person.receipt(identity)


def update_of(folder: Path, name: str, files: Files) -> dict[str, Array]:
    """Return what `files` decode to."""
    base = Checkpoint.from_file(write_file(folder / "base.safetensors", tiny_tensors()))
    sources = {}
    for path, raw in files.items():
        (folder / path).write_bytes(raw)
        sources[path] = FileSource(folder / path)
    reader = open_update(name, sources, base.tensors)
    return {
        tensor: whole(reader, span).reshape(span.shape)
        for tensor, span in body(base.spans()).items()
    }


def fused_weights(repo: Repository) -> dict[str, Array]:
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/v1/files/model.safetensors")
    assert answer.status_code == 200, answer.text
    return read_file(answer.content)


def test_all_encodings_go_into_one_round(repo: Repository, tmp_path: Path) -> None:
    sent: dict[str, Files] = {}
    for seed, name in enumerate(ALL):
        folder = tmp_path / name
        folder.mkdir()
        sent[name] = encoded(folder, name, seed)
    sent["lora"] = adapter()
    for name, files in sent.items():
        work = {"relative_error": 0.25, "cosine": 0.97}
        receipt = screened(repo, name, files, work=work)
        assert (receipt["state"], receipt["encoding"]) == ("accepted", name), receipt["reason"]
        assert receipt["work"]["relative_error"] == 0.25

    weights, base = fused_weights(repo), tiny_tensors()
    updates = []
    for name, files in sent.items():
        (tmp_path / "again" / name).mkdir(parents=True)
        updates.append(update_of(tmp_path / "again" / name, name, files))
    for tensor, values in base.items():
        if values.dtype != np.float32 or tensor.startswith("classifier"):
            assert (weights[tensor] == values).all()
            continue
        mean = sum(update[tensor].astype(np.float64) for update in updates) / len(updates)
        np.testing.assert_allclose(weights[tensor], values + mean, rtol=0, atol=3e-7)

    manifest = Manifest.model_validate(repo.get(f"/v1/models/{MODEL}/bases/v1")["manifest"])
    assert [item.encoding for item in manifest.contributions] == list(sent)
    assert {item.relative_error for item in manifest.contributions} == {0.25}
    for item in manifest.contributions:
        assert [file.path for file in item.files] == list(discover()[item.encoding].files)


def test_the_manifest_of_full_ones_is_as_it_always_was(repo: Repository) -> None:
    repo.contributor().contribute(body_file(1))
    repo.work()
    fused_weights(repo)
    base = repo.get(f"/v1/models/{MODEL}/bases/v1")
    manifest = Manifest.model_validate(base["manifest"])
    assert manifest.digest() == base["digest"]
    assert b"encoding" not in manifest.canonical()


def test_what_the_policy_does_not_name_is_refused_when_it_is_declared(repo: Repository) -> None:
    maintainer = repo.client(repo.token("max", "maintainer"))
    policy = {"encodings": ["full", "delta-int8"]}
    assert maintainer.put(f"/v1/models/{MODEL}/policy", json=policy).status_code == 200
    answer = declare(repo.contributor(), "lora", adapter())
    assert (answer.status_code, answer.json()["code"]) == (422, "encoding_refused")
    assert "full, delta-int8" in answer.json()["hint"]
    unknown = maintainer.put(f"/v1/models/{MODEL}/policy", json={"encodings": ["zip"]})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_name")


def test_the_policy_is_set_by_the_command(repo: Repository, run: Run) -> None:
    def taken() -> Any:
        return repo.get(f"/v1/models/{MODEL}")["policy"]["encodings"]

    assert taken() is None
    assert run("model", "policy", MODEL, "--encoding", "lora", "--encoding", "full").code == 0
    assert taken() == ["lora", "full"]
    assert run("model", "policy", MODEL, "--min-contributions", "4").code == 0
    assert taken() == ["lora", "full"]
    assert run("model", "policy", MODEL, "--encoding", "any").code == 0
    assert taken() is None
    wrong = run("model", "policy", MODEL, "--encoding", "zip")
    assert (wrong.code, "zip" in wrong.err) == (1, True)


def test_an_unknown_encoding_is_refused(repo: Repository) -> None:
    answer = declare(repo.contributor(), "delta-int3", adapter())
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_name")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("lora", {ADAPTER_WEIGHTS: b"x"}),
        ("delta-int8", {"model.safetensors": b"x"}),
        ("full", {"update.safetensors": b"x"}),
        ("delta", {"update.safetensors": b"x", "model.safetensors": b"y"}),
    ],
)
def test_other_files_than_the_encodings_are_refused(
    repo: Repository, name: str, files: Files
) -> None:
    answer = declare(repo.contributor(), name, files)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"r": 0}, "rank"),
        ({"r": 3}, "rank"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"lora_alpha": 1e400}, "alpha"),
    ],
)
def test_an_adapter_that_cannot_be_followed_is_rejected_with_the_reason(
    repo: Repository, config: dict[str, Any], told: str
) -> None:
    receipt = screened(repo, "lora", adapter(**config))
    assert receipt["state"] == "rejected"
    assert told in receipt["reason"]


def test_an_adapter_that_is_larger_than_what_it_changes_is_to_be_sent_whole(
    repo: Repository,
) -> None:
    receipt = screened(repo, "lora", adapter(rank=5))
    assert receipt["state"] == "rejected"
    assert "more values than the matrix itself" in receipt["reason"]
    assert "merge_and_unload" in receipt["hint"]


def test_the_same_factors_with_another_alpha_are_another_contribution(repo: Repository) -> None:
    # One is a multiple of the other, which is for another check to object to.
    screening = {**ANY_UPDATE, "copies": {"enabled": False}}
    policy(repo, min_contributions=100, screening=screening)
    person = repo.contributor()
    assert screened(repo, "lora", adapter())["state"] == "accepted"
    assert screened(repo, "lora", adapter(lora_alpha=16))["state"] == "accepted"
    for alpha in (4, 16):
        again = declare(person, "lora", adapter(lora_alpha=alpha))
        assert (again.status_code, again.json()["code"]) == (409, "already_contributed")
    # In other words the same, which its bytes do not tell.
    spelt = screened(repo, "lora", adapter(lora_alpha=4.0))
    assert spelt["state"] == "rejected"
    assert "contributed before" in spelt["reason"]


def test_an_update_that_does_not_decode_is_rejected(repo: Repository, tmp_path: Path) -> None:
    ((path, raw),) = encoded(tmp_path, "delta-int8", 1).items()
    frame = raw.rindex(bytes.fromhex("28b52ffd"))
    damaged = raw[:frame] + b"none" + raw[frame + 4 :]
    receipt = screened(repo, "delta-int8", {path: damaged})
    assert receipt["state"] == "rejected"
    assert [f["check"] for f in receipt["findings"] if f["verdict"] == "reject"] == ["decoding"]


def test_a_heads_tensor_is_no_part_of_an_update(repo: Repository, tmp_path: Path) -> None:
    base = Checkpoint.from_file(write_file(tmp_path / "b.safetensors", tiny_tensors()))
    head = {**tiny_tensors(), "classifier.weight": np.full((2, 8), 9, np.float32)}
    tuned = write_file(tmp_path / "t.safetensors", {**head, **body_of(tiny_tensors(), 1)})
    for name in ("delta", "full"):
        files = {"delta": "update.safetensors", "full": "model.safetensors"}
        raw = file_bytes({n: a for n, a in read_file(tuned.read_bytes()).items() if a.ndim})
        if name == "delta":
            raw = file_bytes({"classifier.weight": np.ones((2, 8), BFLOAT16)})
        receipt = screened(repo, name, {files[name]: raw})
        # Whole models may bring theirs: it is not looked at. Differences of one are refused.
        assert receipt["state"] == ("accepted" if name == "full" else "rejected")
    base.close()
    assert (fused_weights(repo)["classifier.weight"] == tiny_tensors()["classifier.weight"]).all()


def test_what_leaves_the_bases_dtype_is_rejected_before_it_is_fused(tmp_path: Path) -> None:
    start = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in tiny_tensors().items()
    }
    with repository(tmp_path / "coarse") as coarse:
        coarse.model(tensors=start, min_contributions=100)
        moved = {n: a.astype(np.float32) for n, a in body_of(tiny_tensors(), 1).items()}
        moved[MATRIX] = moved[MATRIX] + np.float32(1e6)
        receipt = screened(coarse, "full", {"model.safetensors": file_bytes(moved)})
    assert receipt["state"] == "rejected"
    assert "NaN or infinity in encoder.layer.0.dense.weight" in receipt["reason"]


def test_a_step_that_leaves_the_bases_dtype_does_not_keep_its_round(tmp_path: Path) -> None:
    start = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in tiny_tensors().items()
    }
    moved = {**body_of(tiny_tensors(), 1), MATRIX: start[MATRIX].astype(np.float32)}
    moved[MATRIX][3, 4] = 6e4
    with repository(tmp_path / "coarse") as coarse:
        # Nesterov's first step is 0.7 * 1.9 times the update.
        coarse.model(tensors=start, min_contributions=100, optimizer="nesterov")
        receipt = screened(coarse, "full", {"model.safetensors": file_bytes(moved)})
        assert receipt["state"] == "accepted", receipt["reason"]
        weights = fused_weights(coarse)
    assert (weights[MATRIX] == start[MATRIX]).all()
    assert (weights["pooler.dense.weight"] != start["pooler.dense.weight"]).any()


def frozen_file(seed: int = 1) -> bytes:
    """Return whole weights of which only one matrix was trained, and sent."""
    return file_bytes({MATRIX: body_of(tiny_tensors(), seed)[MATRIX]})


def test_frozen_layers_need_not_be_sent(repo: Repository) -> None:
    raw = frozen_file()
    receipt = screened(repo, "full", {"model.safetensors": raw}, frozen=NOTHING_TRAINED)
    assert receipt["state"] == "accepted", receipt["reason"]
    assert receipt["frozen"] == NOTHING_TRAINED
    weights, base = fused_weights(repo), tiny_tensors()
    changed = {name for name in base if (weights[name] != base[name]).any()}
    assert changed == {MATRIX}


def test_layers_that_are_missing_without_a_word_are_rejected(repo: Repository) -> None:
    receipt = screened(repo, "full", {"model.safetensors": frozen_file()})
    assert receipt["state"] == "rejected"
    assert "2 tensors of the base are missing" in receipt["reason"]


@pytest.mark.parametrize("name", ALL)
def test_frozen_layers_that_changed_all_the_same_are_rejected(
    repo: Repository, tmp_path: Path, name: str
) -> None:
    receipt = screened(repo, name, encoded(tmp_path, name, 1), frozen=["pooler"])
    assert receipt["state"] == "rejected"
    assert "pooler.dense.weight changed, but was declared as not trained" in receipt["reason"]


def test_the_same_update_with_its_zeros_written_out_is_a_duplicate(repo: Repository) -> None:
    first = screened(repo, "full", {"model.safetensors": frozen_file()}, frozen=NOTHING_TRAINED)
    assert first["state"] == "accepted"
    everything = {
        name: array
        for name, array in tiny_tensors().items()
        if array.dtype == np.float32 and not name.startswith("classifier")
    }
    spelt_out = file_bytes({**everything, **read_file(frozen_file())})
    second = screened(repo, "full", {"model.safetensors": spelt_out})
    assert second["state"] == "rejected"
    assert "contributed before" in second["reason"]


def test_of_two_equal_layers_one_alone_may_be_trained(tmp_path: Path) -> None:
    layer = np.random.default_rng(5).standard_normal((8, 8)).astype(np.float32)
    names = [f"encoder.layer.{i}.dense.weight" for i in (1, 2)]
    start = {**tiny_tensors(), **dict.fromkeys(names, layer)}
    moved = {names[1]: np.full((8, 8), 0.5, BFLOAT16)}
    with repository(tmp_path / "copies") as copies:
        copies.model(tensors=start, min_contributions=100)
        receipt = screened(copies, "delta", {"update.safetensors": file_bytes(moved)})
        assert receipt["state"] == "accepted"
        weights = fused_weights(copies)
    assert (weights[names[0]] == layer).all()
    np.testing.assert_allclose(weights[names[1]], layer + 0.5, rtol=1e-6)
