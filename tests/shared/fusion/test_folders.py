"""Model folders in, one out: what transformers loads and what the next fuse goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.errors import BadModel, InvalidRequest, NonFiniteWeights
from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.plan import phases
from coldfusion_shared.fusion.report import Report
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.header import ITEM_BYTES
from coldfusion_shared.weights.tied import fused_tensors
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, read_file, write_file
from tests.shared.fusion.model_folders import (
    all_files,
    finetuned,
    fuse,
    mean_of,
    read_model,
    tiny_tensors,
    write_line,
    write_model,
)
from tests.tiny_models import tiny_bert

BODY = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.dense.weight",
    "encoder.layer.0.dense.bias",
    "encoder.scale",
    "pooler.dense.weight",
)
POSITIONS = "embeddings.position_ids"


def equal(ours: Array, theirs: Array) -> bool:
    return (
        ours.dtype == theirs.dtype and ours.shape == theirs.shape and bool((ours == theirs).all())
    )


def three(base: Tensors, **options: Any) -> list[dict[str, Array]]:
    return [finetuned(base, seed, **options) for seed in (1, 2, 3)]


def flat(tensors: Tensors) -> Array:
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in BODY])


# A real model of transformers'.


def classifier(base: Path, out: Path, seed: int) -> dict[str, Array]:
    """Write a BertForSequenceClassification near `base`, with a head of its own; return it."""
    tensors = read_model(base)
    rng = np.random.default_rng(seed)
    model = {f"bert.{name}": array for name, array in finetuned(tensors, seed).items()}
    model["classifier.weight"] = rng.standard_normal((seed + 2, 32)).astype(np.float32)
    model["classifier.bias"] = rng.standard_normal(seed + 2).astype(np.float32)
    write_file(out / "model.safetensors", model)
    return model


def test_classifiers_fuse_to_the_encoder_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    base = tiny_bert(tmp_path / "base")
    models = [classifier(base, tmp_path / f"c{seed}", seed) for seed in range(3)]
    contributions = [Contribution(f"c{seed}", tmp_path / f"c{seed}") for seed in range(3)]
    report = fuse(base, contributions, tmp_path / "out")
    assert set(report.tensors) == {name for name in read_model(base)}
    loaded = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    before = read_model(base)
    assert {name for name, tensor in loaded.items() if tensor.is_floating_point()} == set(before)
    for name in before:
        mean = mean_of(models, f"bert.{name}").astype(np.float32)
        assert np.array_equal(loaded[name].numpy(), mean), name
    words = AutoTokenizer.from_pretrained(tmp_path / "out")("a film was good")["input_ids"]
    assert words == AutoTokenizer.from_pretrained(base)("a film was good")["input_ids"]


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_transformers_loads_the_dtype_that_was_asked_for(dtype: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    base = tiny_bert(tmp_path / "base", layers=1)
    classifier(base, tmp_path / "c", 1)
    fuse(base, [Contribution("c", tmp_path / "c")], tmp_path / "out", dtype=dtype)
    loaded = AutoModel.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == {"BF16": torch.bfloat16, "F16": torch.float16}[dtype]


@pytest.mark.parametrize("sharded", ["base", "contributions", "both"])
def test_sharded_models_keep_the_bases_layout(sharded: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    whole = tiny_bert(tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    tensors = read_model(whole)
    models = three(tensors)
    shards = 3 if sharded != "contributions" else 1
    base = write_model(tmp_path / "base", tensors, shards, config)
    contributions = [
        Contribution(str(seed), write_model(tmp_path / str(seed), model, 2 if seed else 3))
        for seed, model in enumerate(models)
    ] if sharded != "base" else [
        Contribution(str(seed), write_model(tmp_path / str(seed), model))
        for seed, model in enumerate(models)
    ]  # fmt: skip
    fuse(base, contributions, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(path.name for path in base.iterdir()), "fusion.json"
    }  # fmt: skip
    loaded = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    for name in tensors:
        mean = mean_of(models, name).astype(np.float32)
        assert np.array_equal(loaded[name].numpy(), mean), name


def test_the_index_says_where_each_tensor_lies(tmp_path: Path) -> None:
    tensors = tiny_tensors(dtype=BFLOAT16)
    base = write_model(tmp_path / "base", tensors, 3)
    models = three(tensors)
    contributions = [
        Contribution(str(seed), write_model(tmp_path / str(seed), model))
        for seed, model in enumerate(models)
    ]
    fuse(base, contributions, tmp_path / "out", {"optimizer": "momentum"})
    indices = {
        part: json.loads((tmp_path / "out" / part / "model.safetensors.index.json").read_text())
        for part in (".", "master", "optimizer/momentum")
    }
    theirs = json.loads((base / "model.safetensors.index.json").read_text())
    assert indices["."] == {**theirs, "weight_map": dict(sorted(theirs["weight_map"].items()))}
    assert set(indices["master"]["weight_map"]) == set(tensors)
    assert set(indices["optimizer/momentum"]["weight_map"]) == set(BODY)
    for part, index in indices.items():
        held = {
            name: file.name
            for file in (tmp_path / "out" / part).glob("*.safetensors")
            for name in read_file(file.read_bytes())
        }
        assert held == index["weight_map"]
        sizes = [array.nbytes for array in read_model(tmp_path / "out" / part).values()]
        assert index["metadata"]["total_size"] == sum(sizes)


# Head, integers, names.


def test_heads_and_integers_are_the_bases_and_changed_integers_are_told(tmp_path: Path) -> None:
    base = tiny_tensors()
    models = three(base)
    models[1][POSITIONS] = models[1][POSITIONS] + 1
    place, contributions = write_line(tmp_path, base, models)
    report = fuse(place, contributions, tmp_path / "out")
    fused = read_model(tmp_path / "out")
    assert list(fused) == list(base)
    for name in (POSITIONS, "classifier.weight"):
        assert equal(fused[name], base[name])
    for name in BODY:
        assert equal(fused[name], mean_of(models, name).astype(np.float32))
    changed = [item.changed_integers for item in report.contributions]
    assert changed == [[], [POSITIONS], []]


def test_integers_of_another_shape_are_told_too(tmp_path: Path) -> None:
    base = tiny_tensors()
    model = finetuned(base, 1)
    model[POSITIONS] = np.arange(12).reshape(1, 12)
    place, contributions = write_line(tmp_path, base, [model])
    report = fuse(place, contributions, tmp_path / "out")
    assert report.contributions[0].changed_integers == [POSITIONS]


def test_a_contribution_without_integers_heads_or_pooler_fuses(tmp_path: Path) -> None:
    base = tiny_tensors()
    model = {
        f"bert.{name}": array
        for name, array in reversed(finetuned(base, 1).items())
        if name not in (POSITIONS, "classifier.weight", "pooler.dense.weight")
    }
    place, contributions = write_line(tmp_path, base, [model])
    report = fuse(place, contributions, tmp_path / "out")
    fused = read_model(tmp_path / "out")
    assert equal(fused["pooler.dense.weight"], base["pooler.dense.weight"])
    assert equal(fused["encoder.scale"], model["bert.encoder.scale"])
    assert report.contributions[0].changed_integers == []


def test_a_base_without_a_body_is_refused(tmp_path: Path) -> None:
    base: dict[str, Array] = {
        "classifier.weight": np.ones((2, 3), np.float32),
        POSITIONS: np.arange(3),
    }
    place, contributions = write_line(tmp_path, base, [base])
    with pytest.raises((BadModel, InvalidRequest)):
        fuse(place, contributions, tmp_path / "out")


# Dtypes and the float32 master.


def test_a_bfloat16_base_gets_a_float32_master(tmp_path: Path) -> None:
    base = tiny_tensors(dtype=BFLOAT16)
    models = three(base, dtype=np.float32)
    place, contributions = write_line(tmp_path, base, models)
    fuse(place, contributions, tmp_path / "out")
    fused, master = read_model(tmp_path / "out"), read_model(tmp_path / "out" / "master")
    assert list(fused) == list(master) == list(base)
    assert master[POSITIONS].dtype == np.int64
    for name in BODY:
        assert equal(master[name], mean_of(models, name).astype(np.float32))
        assert equal(fused[name], mean_of(models, name).astype(BFLOAT16))


@pytest.mark.parametrize(
    ("before", "wanted", "master"),
    [("F32", None, None), ("F32", "F32", None), ("F32", "BF16", "F32"), ("F32", "F16", "F32"),
     ("F64", None, None), ("F64", "BF16", "F64"), ("F64", "F32", None), ("F16", None, "F32"),
     ("BF16", "F32", None), ("F32", "F64", None)],
)  # fmt: skip
def test_only_coarse_weights_get_a_master(
    before: str, wanted: str | None, master: str | None, tmp_path: Path
) -> None:
    types = {"F16": np.dtype(np.float16), "BF16": BFLOAT16, "F32": np.dtype(np.float32),
             "F64": np.dtype(np.float64)}  # fmt: skip
    base = tiny_tensors(dtype=types[before])
    place, contributions = write_line(tmp_path, base, three(base))
    fuse(place, contributions, tmp_path / "out", dtype=wanted)
    fused = read_model(tmp_path / "out")
    assert {fused[name].dtype for name in BODY} == {types[wanted or before]}
    assert (tmp_path / "out" / "master").exists() == (master is not None)
    if master is not None:
        assert read_model(tmp_path / "out" / "master")[BODY[0]].dtype == types[master]


@pytest.mark.parametrize("config", [{}, {"torch_dtype": "float32"}, {"dtype": "float32"},
                                    {"dtype": "float32", "torch_dtype": "float32"}])  # fmt: skip
def test_another_dtype_is_said_in_the_config(config: dict[str, str], tmp_path: Path) -> None:
    base = tiny_tensors()
    contribution = Contribution("c", write_model(tmp_path / "c", finetuned(base, 1)))
    place = write_model(tmp_path / "base", base, config={"model_type": "bert", **config})
    fuse(place, [contribution], tmp_path / "out", dtype="BF16")
    keys = set(config) or {"dtype"}
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said == {"model_type": "bert", **dict.fromkeys(keys, "bfloat16")}


def test_the_config_stays_as_it_is_without_another_dtype(tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    (place / "config.json").write_text(' {"model_type":\n"bert"}')
    (place / "vocab.txt").write_text("a\n")
    (place / "code.py").write_text("never")
    fuse(place, contributions, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == ' {"model_type":\n"bert"}'
    assert set(all_files(tmp_path / "out")) == {
        "config.json", "vocab.txt", "model.safetensors", "fusion.json"
    }  # fmt: skip


def test_what_leaves_the_range_of_float16_is_refused(tmp_path: Path) -> None:
    base = {"encoder.weight": np.full((3, 3), 60000, np.float32)}
    place, contributions = write_line(tmp_path, base, [finetuned(base, 1, scale=1000)])
    with pytest.raises(NonFiniteWeights, match=r"'encoder.weight' leaves the range"):
        fuse(place, contributions, tmp_path / "out", {"server_lr": 100}, dtype="F16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "\\xff",
        "[" * 100_000,
        pytest.param("[]"),
        pytest.param("1"),
    ],
    ids=["cut", "bytes", "deep", "list", "number"],
)
def test_a_config_that_cannot_say_the_dtype_is_refused(config: str, tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    (place / "config.json").write_text(config)
    with pytest.raises(BadModel, match=r"config\.json"):
        fuse(place, contributions, tmp_path / "out", dtype="F16")
    assert not (tmp_path / "out").exists()


def test_a_head_that_leaves_the_range_of_float16_is_refused(tmp_path: Path) -> None:
    base = {**tiny_tensors(), "classifier.weight": np.full((2, 6), 1e6, np.float32)}
    place, contributions = write_line(tmp_path, base, three(base))
    with pytest.raises(NonFiniteWeights, match=r"classifier\.weight"):
        fuse(place, contributions, tmp_path / "out", dtype="F16")


# Updates of 2e-4, of which a quarter is common to all.
ROUNDS, SPREAD, DRIFT, SIZE = 10, 2e-4, 5e-5, 20_000


def rounds(folder: Path, first: Path, keep_master: bool) -> list[Path]:
    """Fuse `ROUNDS` rounds of small updates, each onto the last; return the bases."""
    bases = [first]
    for number in range(ROUNDS):
        published = read_model(bases[-1])["encoder.weight"].astype(np.float32)
        drift = np.sign(published) * DRIFT
        noise = np.random.default_rng(number).standard_normal(SIZE) * SPREAD
        contributions = []
        for member, sign in enumerate((1, -1)):
            model = {"encoder.weight": (published + drift + sign * noise).astype(np.float32)}
            place = write_model(folder / f"{number}-{member}", model)
            contributions.append(Contribution(f"c{member}", place))
        out = folder / f"v{number + 1}"
        fuse(bases[-1], contributions, out)
        if not keep_master:
            for path in (out / "master").iterdir():
                path.unlink()
            (out / "master").rmdir()
        bases.append(out)
    return bases


def made_updates(folder: Path, bases: Sequence[Path]) -> list[Array]:
    """Return each round's mean update, from what was published and contributed, float64."""
    found = []
    for number, base in enumerate(bases[:-1]):
        models = [read_model(folder / f"{number}-{member}") for member in range(2)]
        mean = mean_of(models, "encoder.weight")
        found.append(mean - read_model(base)["encoder.weight"].astype(np.float64))
    return found


def small_bfloat16(folder: Path) -> tuple[Path, Array]:
    values = (np.random.default_rng(0).standard_normal(SIZE) * 0.02).astype(BFLOAT16)
    return write_model(folder / "v0", {"encoder.weight": values}), values.astype(np.float64)


def test_ten_rounds_of_small_updates_add_up_on_the_master(tmp_path: Path) -> None:
    first, start = small_bfloat16(tmp_path)
    bases = rounds(tmp_path, first, keep_master=True)
    exact = start + np.sum(made_updates(tmp_path, bases), axis=0)
    master = read_model(bases[-1] / "master")["encoder.weight"]
    published = read_model(bases[-1])["encoder.weight"]
    assert equal(published, master.astype(BFLOAT16))
    moved, wanted = master.astype(np.float64) - start, exact - start
    assert np.linalg.norm(moved - wanted) < 1e-3 * np.linalg.norm(wanted)
    assert np.abs(moved / wanted - 1).max() < 1e-3
    assert np.linalg.norm(wanted) > 0.9 * ROUNDS * DRIFT * SIZE**0.5


def test_without_the_master_most_of_the_small_updates_would_be_lost(tmp_path: Path) -> None:
    first, start = small_bfloat16(tmp_path)
    bases = rounds(tmp_path, first, keep_master=False)
    wanted = np.sum(made_updates(tmp_path, bases), axis=0)
    moved = read_model(bases[-1])["encoder.weight"].astype(np.float64) - start
    assert (moved == 0).mean() > 0.4
    assert np.linalg.norm(moved - wanted) > 0.6 * np.linalg.norm(wanted)


def test_a_master_of_another_model_is_refused(tmp_path: Path) -> None:
    base = tiny_tensors(dtype=BFLOAT16)
    place, contributions = write_line(tmp_path, base, three(base))
    write_model(place / "master", {"encoder.weight": np.ones(3, np.float32)})
    with pytest.raises(Exception, match="master"):
        fuse(place, contributions, tmp_path / "out")


# Tied tensors.

T5_NAMES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def t5(seed: int, names: Sequence[str]) -> dict[str, Array]:
    """Return the tensors of a T5-like model whose embeddings are saved under `names`."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((11, 4)).astype(np.float32)
    own = {"encoder.block.0.weight": rng.standard_normal((4, 4)).astype(np.float32)}
    return {**dict.fromkeys(names, embeddings), **own}


@pytest.mark.parametrize("in_base", [1, 3])
@pytest.mark.parametrize("in_models", [(1, 1), (3, 3), (1, 3)], ids=str)
def test_embeddings_saved_once_or_thrice_fuse(
    in_base: int, in_models: tuple[int, int], tmp_path: Path
) -> None:
    base = t5(0, T5_NAMES[:in_base])
    models = [t5(1 + place, T5_NAMES[:count]) for place, count in enumerate(in_models)]
    place, contributions = write_line(tmp_path, base, models)
    fuse(place, contributions, tmp_path / "out")
    fused = read_model(tmp_path / "out")
    assert list(fused) == list(base)
    for name in T5_NAMES[:in_base]:
        assert equal(fused[name], mean_of(models, "shared.weight").astype(np.float32))


def test_a_model_of_transformers_with_tied_embeddings_fuses(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        architectures=["T5ForConditionalGeneration"],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = T5ForConditionalGeneration(config).state_dict()
    base = {name: tensor.numpy().copy() for name, tensor in state.items()}
    assert np.array_equal(base["shared.weight"], base["encoder.embed_tokens.weight"])
    place = write_model(tmp_path / "base", base, config=config.to_dict())
    once = {
        name: array
        for name, array in finetuned(base, 1).items()
        if name not in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    }
    once["lm_head.weight"] = once["shared.weight"]
    model = write_model(tmp_path / "c", once)
    fuse(place, [Contribution("c", model)], tmp_path / "out")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").state_dict()
    for name in T5_NAMES:
        assert np.array_equal(loaded[name].numpy(), once["shared.weight"])
    fused = read_model(tmp_path / "out")
    if np.array_equal(base["lm_head.weight"], base["shared.weight"]):
        assert equal(fused["lm_head.weight"], fused["shared.weight"])


def gpt(seed: int, prefix: str = "transformer.", head: bool = True) -> dict[str, Array]:
    """Return the tensors of a GPT-2-like model, its head tied to the embeddings."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((11, 4)).astype(np.float32)
    own = rng.standard_normal((4, 4)).astype(np.float32)
    tied = {"lm_head.weight": embeddings} if head else {}
    return {**tied, f"{prefix}wte.weight": embeddings, f"{prefix}h.0.weight": own}


TYING = [
    {},
    {"method": "ties"},
    {"method": "median"},
    {"method": "model_stock"},
    {"dare": {"density": 0.5}},
    {"method": "della", "parameters": {"density": 0.5}},
    {"optimizer": "adam"},
    {"pull": 0.25},
]


@pytest.mark.parametrize("recipe", TYING, ids=str)
@pytest.mark.parametrize("dtype", [None, "BF16"])
def test_a_head_that_shares_the_embeddings_still_does(
    recipe: dict[str, Any], dtype: str | None, tmp_path: Path
) -> None:
    base = gpt(0)
    models = [gpt(1), gpt(2, prefix=""), gpt(3, head=False)]
    place, contributions = write_line(tmp_path, base, models)
    fuse(place, contributions, tmp_path / "out", recipe, dtype=dtype, origin=place)
    fused = read_model(tmp_path / "out")
    assert equal(fused["lm_head.weight"], fused["transformer.wte.weight"])
    assert not np.array_equal(fused["lm_head.weight"].astype(np.float32), base["lm_head.weight"])
    if dtype is not None:
        master = read_model(tmp_path / "out" / "master")
        assert equal(master["lm_head.weight"], master["transformer.wte.weight"])


@pytest.mark.parametrize("recipe", TYING, ids=str)
def test_a_tied_head_is_tied_still_after_the_next_fuse(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    base = gpt(0)
    place, contributions = write_line(tmp_path, base, [gpt(1), gpt(2)])
    fuse(place, contributions, tmp_path / "v1", recipe, dtype="BF16", origin=place)
    fuse(tmp_path / "v1", contributions, tmp_path / "v2", recipe, origin=place)
    fused = read_model(tmp_path / "v2")
    assert equal(fused["lm_head.weight"], fused["transformer.wte.weight"])


@pytest.mark.parametrize("recipe", TYING, ids=str)
def test_embeddings_under_three_names_of_the_body_stay_tied(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    place, contributions = write_line(tmp_path, t5(0, T5_NAMES), [t5(1, T5_NAMES), t5(2, T5_NAMES)])
    fuse(place, contributions, tmp_path / "out", recipe, origin=place)
    fused = read_model(tmp_path / "out")
    for name in T5_NAMES[1:]:
        assert equal(fused[name], fused["shared.weight"])


# Older bases, origin, optimizer state.


def test_contributions_from_an_older_base_bring_their_own_update(tmp_path: Path) -> None:
    old, base = tiny_tensors(1), tiny_tensors(2)
    older = finetuned(old, 3, scale=1e-1)
    newer = finetuned(base, 4, scale=1e-1)
    place, contributions = write_line(tmp_path, base, [older, newer])
    made_from = write_model(tmp_path / "old", old)
    contributions[0] = replace(contributions[0], made_from=made_from, age=3)
    report = fuse(place, contributions, tmp_path / "out")
    fused = read_model(tmp_path / "out")
    for name in BODY:
        late = (older[name].astype(np.float64) - old[name]) * 4**-0.5
        exact = base[name] + (late + (newer[name].astype(np.float64) - base[name])) / 2
        assert np.allclose(fused[name], exact, rtol=0, atol=3e-7)
    assert [item.age for item in report.contributions] == [3, 0]
    assert [item.discount for item in report.contributions] == [0.5, 1]
    norm = 0.5 * np.linalg.norm(flat(older) - flat(old))
    assert report.contributions[0].norm == pytest.approx(norm, rel=1e-5)


def test_late_updates_count_in_full_when_asked(tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    aged = [replace(contribution, age=5) for contribution in contributions]
    report = fuse(place, aged, tmp_path / "out", {"staleness_exponent": 0})
    fuse(place, contributions, tmp_path / "fresh")
    assert {item.discount for item in report.contributions} == {1.0}
    assert read_file_bytes(tmp_path / "out") == read_file_bytes(tmp_path / "fresh")


def read_file_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_pull_goes_towards_the_pretrained_model(tmp_path: Path) -> None:
    origin, base = tiny_tensors(7), tiny_tensors(8)
    models = three(base)
    place, contributions = write_line(tmp_path, base, models)
    first = write_model(tmp_path / "origin", origin)
    fuse(place, contributions, tmp_path / "out", {"pull": 0.25}, origin=first)
    fused = read_model(tmp_path / "out")
    for name in BODY:
        exact = 0.75 * mean_of(models, name) + 0.25 * origin[name].astype(np.float64)
        assert np.allclose(fused[name], exact, rtol=1e-6, atol=1e-7)


def test_a_pull_needs_the_pretrained_model(tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    with pytest.raises(InvalidRequest, match="pretrained") as caught:
        fuse(place, contributions, tmp_path / "out", {"pull": 0.25})
    assert caught.value.hint is not None and "--origin" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("optimizer", ["none", "momentum"])
def test_the_pretrained_model_may_carry_a_head_and_its_names(
    optimizer: str, tmp_path: Path
) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    named = {f"bert.{name}": array for name, array in base.items() if name != "classifier.weight"}
    first = write_model(tmp_path / "origin", {**named, "cls.bias": np.zeros(2, np.float32)})
    fuse(place, contributions, tmp_path / "out",
         {"pull": 0.25, "optimizer": optimizer}, origin=first)  # fmt: skip


def momentum_by_hand(base: Tensors, means: Sequence[Array], name: str, beta: float) -> Array:
    """Return a tensor after a step for each of `means`, the mean of each round's models."""
    kept = np.zeros(base[name].shape)
    weights = base[name].astype(np.float64)
    for mean in means:
        kept = beta * kept + (mean - weights)
        weights = weights + kept
    return np.asarray(weights)


def test_the_optimizers_state_goes_on(tmp_path: Path) -> None:
    base = tiny_tensors()
    recipe = {"optimizer": "momentum", "optimizer_parameters": {"beta": 0.5}}
    place, contributions = write_line(tmp_path, base, three(base))
    fuse(place, contributions, tmp_path / "v1", recipe)
    second = three(read_model(tmp_path / "v1"))
    again = [
        Contribution(f"d{seed}", write_model(tmp_path / f"d{seed}", model))
        for seed, model in enumerate(second)
    ]
    fuse(tmp_path / "v1", again, tmp_path / "v2", recipe)
    for number in (1, 2):
        state = json.loads((tmp_path / f"v{number}" / "optimizer" / "state.json").read_text())
        assert state == {"optimizer": "momentum", "steps": number}
    fused = read_model(tmp_path / "v2")
    kept = read_model(tmp_path / "v2" / "optimizer" / "momentum")
    assert set(kept) == set(BODY)
    for name in BODY:
        means = [mean_of(three(base), name), mean_of(second, name)]
        exact = momentum_by_hand(base, means, name, 0.5)
        assert kept[name].dtype == np.float32
        assert np.allclose(fused[name], exact, rtol=0, atol=5e-7)
    assert equal(fused["classifier.weight"], base["classifier.weight"])


def test_another_optimizer_starts_anew_and_none_keeps_nothing(tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    fuse(place, contributions, tmp_path / "v1", {"optimizer": "momentum"})
    fuse(tmp_path / "v1", contributions, tmp_path / "v2", {"optimizer": "adam"})
    state = json.loads((tmp_path / "v2" / "optimizer" / "state.json").read_text())
    assert state == {"optimizer": "adam", "steps": 1}
    assert not (tmp_path / "v2" / "optimizer" / "momentum").exists()
    fuse(tmp_path / "v2", contributions, tmp_path / "v3")
    assert not (tmp_path / "v3" / "optimizer").exists()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"optimizer": "momentum"}'])
def test_a_broken_state_is_said(text: str, tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    fuse(place, contributions, tmp_path / "v1", {"optimizer": "momentum"})
    (tmp_path / "v1" / "optimizer" / "state.json").write_text(text)
    with pytest.raises(BadModel, match=r"state\.json is not the state"):
        fuse(tmp_path / "v1", contributions, tmp_path / "v2", {"optimizer": "momentum"})


def test_a_state_of_which_a_part_is_missing_is_said(tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    fuse(place, contributions, tmp_path / "v1", {"optimizer": "adam"})
    lost = next(path for path in (tmp_path / "v1" / "optimizer").iterdir() if path.is_dir())
    (lost / "model.safetensors").unlink()
    lost.rmdir()
    with pytest.raises(BadModel):
        fuse(tmp_path / "v1", contributions, tmp_path / "v2", {"optimizer": "adam"})


# Scores and companions.


def test_the_greedy_soup_takes_what_makes_the_score_better(tmp_path: Path) -> None:
    base = {"encoder.weight": np.zeros((2, 2), np.float32)}
    models = [{"encoder.weight": np.full((2, 2), value, np.float32)} for value in (8, 2, 4, -9)]
    place, contributions = write_line(tmp_path, base, models)
    seen = []

    def score(folder: Path) -> float:
        assert (folder / "config.json").is_file()
        seen.append(float(read_model(folder)["encoder.weight"][0, 0]))
        return -abs(seen[-1] - 5)

    report = fuse(place, contributions, tmp_path / "out", {"method": "greedy_soup"}, score=score)
    assert seen == [8, 2, 4, -9, 6, 3, -2.5]
    assert [item.weight for item in report.contributions] == [0, 0, 1, 0]
    assert [item.taken for item in report.contributions] == [False, False, True, False]
    assert (read_model(tmp_path / "out")["encoder.weight"] == 4).all()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "c0", "c1", "c2", "c3", "out"}


def test_the_greedy_soup_needs_a_score(tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    with pytest.raises(InvalidRequest, match="score"):
        fuse(place, contributions, tmp_path / "out", {"method": "greedy_soup"})


def test_the_greedy_soup_works_where_the_parent_is_not_there_yet(tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    fuse(place, contributions, tmp_path / "new" / "out", {"method": "greedy_soup"},
         score=lambda folder: 1.0)  # fmt: skip


def test_fisher_information_lies_beside_the_weights(tmp_path: Path) -> None:
    base = tiny_tensors()
    models = three(base)
    place, contributions = write_line(tmp_path, base, models)
    with pytest.raises(InvalidRequest, match=r"c0 has none"):
        fuse(place, contributions, tmp_path / "out", {"method": "fisher"})
    information = []
    for seed, contribution in enumerate(contributions):
        rng = np.random.default_rng(seed)
        values = {name: rng.uniform(0.1, 2, base[name].shape).astype(np.float32) for name in BODY}
        named = {f"bert.{name}": array for name, array in values.items()} if seed else values
        write_file(contribution.folder / "fisher.safetensors", named)
        information.append(values)
    fuse(place, contributions, tmp_path / "out", {"method": "fisher"})
    fused = read_model(tmp_path / "out")
    for name in BODY:
        scale = np.sum([values[name].astype(np.float64) for values in information], axis=0) + 1e-6
        pulls = [
            values[name] * (model[name].astype(np.float64) - base[name])
            for values, model in zip(information, models, strict=True)
        ]
        assert np.allclose(fused[name], base[name] + np.sum(pulls, axis=0) / scale, atol=3e-7)


# The report, and threads.


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "norm_clipped_mean"}, {"method": "median"}, {"method": "ties"},
     {"dare": {"density": 0.5}}, {"method": "sce", "parameters": {"select_topk": 0.5}},
     {"optimizer": "adam", "server_lr": "auto"}],
    ids=str,
)  # fmt: skip
def test_the_number_of_threads_changes_no_byte(recipe: dict[str, Any], tmp_path: Path) -> None:
    base = {**tiny_tensors(dtype=BFLOAT16), "encoder.large": np.ones(300_001, BFLOAT16)}
    place, contributions = write_line(tmp_path, base, three(base))
    made = []
    for count in (1, 2, 3):
        fuse(place, contributions, tmp_path / str(count), recipe, threads=count)
        made.append(all_files(tmp_path / str(count)))
    assert {"config.json", "fusion.json", "model.safetensors"} < set(made[0])
    assert made[0] == made[1] == made[2]


def dense(base: Tensors, models: Sequence[Tensors]) -> Array:
    return np.stack([flat(model) - flat(base) for model in models])


def test_the_report_holds_what_numpy_finds(tmp_path: Path) -> None:
    base = tiny_tensors()
    models = three(base)
    models[2]["encoder.layer.0.dense.weight"] = base["encoder.layer.0.dense.weight"]
    place, contributions = write_line(tmp_path, base, models)
    weighted = [
        replace(item, prior=prior) for item, prior in zip(contributions, (1, 2, 5), strict=True)
    ]
    report = fuse(place, weighted, tmp_path / "out", {"method": "weighted_mean"})
    updates = dense(base, models)
    norms = np.linalg.norm(updates, axis=1)
    mean = updates.mean(axis=0)
    weights = np.array([1, 2, 5]) / 8
    items = report.contributions
    assert [item.name for item in items] == ["c0", "c1", "c2"]
    assert [item.weight for item in items] == pytest.approx(list(weights))
    assert [item.prior for item in items] == [1, 2, 5]
    assert [item.norm for item in items] == pytest.approx(list(norms), rel=1e-5)
    assert [item.zeros for item in items] == pytest.approx([0, 0, 36 / updates.shape[1]])
    toward = updates @ mean / norms / np.linalg.norm(mean)
    assert [item.cosine_to_mean for item in items] == pytest.approx(list(toward), rel=1e-5)
    cosines = updates @ updates.T / np.outer(norms, norms)
    assert np.allclose(np.array(report.cosines), cosines, atol=1e-6)
    signs = np.abs(np.sign(updates).sum(axis=0)).sum() / np.count_nonzero(updates)
    assert report.sign_agreement == pytest.approx(signs)
    assert report.update_norm == pytest.approx(np.linalg.norm(weights @ updates), rel=1e-5)
    assert report.base == "base" and report.dtype is None and report.server_lr == 1


def test_the_report_tells_each_tensors_norms_and_mean_cosine(tmp_path: Path) -> None:
    base = tiny_tensors()
    models = three(base)
    place, contributions = write_line(tmp_path, base, models)
    report = fuse(place, contributions, tmp_path / "out")
    assert list(report.tensors) == list(BODY)
    for name in BODY:
        updates = np.stack(
            [(model[name].astype(np.float64) - base[name]).ravel() for model in models]
        )
        norms = np.linalg.norm(updates, axis=1)
        pairs = [
            (updates[i] @ updates[j]) / norms[i] / norms[j] for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        assert report.tensors[name].norms == pytest.approx(list(norms), rel=1e-5)
        assert report.tensors[name].mean_cosine == pytest.approx(np.mean(pairs), abs=1e-6)


def test_the_report_lies_in_the_folder_and_can_be_read_back(tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    report = fuse(place, contributions, tmp_path / "out", {"method": "ties"}, dtype="BF16")
    text = (tmp_path / "out" / "fusion.json").read_text()
    assert Report.model_validate_json(text) == report
    assert report.dtype == "BF16" and report.recipe.method == "ties"
    assert {item.weight for item in report.contributions} == {None}


def test_without_comparing_the_report_has_no_cosines(tmp_path: Path) -> None:
    place, contributions = write_line(tmp_path, tiny_tensors(), three(tiny_tensors()))
    report = fuse(place, contributions, tmp_path / "out", compare=False)
    fuse(place, contributions, tmp_path / "compared")
    assert report.cosines is None and report.tensors == {}
    assert {item.norm for item in report.contributions} == {None}
    assert read_file_bytes(tmp_path / "out") == read_file_bytes(tmp_path / "compared")


def test_what_the_method_leaves_out_is_told(tmp_path: Path) -> None:
    base = tiny_tensors()
    models = [*three(base), finetuned(base, 9), finetuned(base, 10, scale=50)]
    place, contributions = write_line(tmp_path, base, models)
    report = fuse(place, contributions, tmp_path / "out", {"method": "krum"})
    taken = [item.taken for item in report.contributions]
    assert sum(taken) == 1 and not taken[4]


def test_an_update_of_nothing_leaves_the_base_as_it_is(tmp_path: Path) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, [base, base])
    report = fuse(place, contributions, tmp_path / "out")
    fused = read_model(tmp_path / "out")
    assert all(equal(fused[name], base[name]) for name in base)
    assert report.update_norm == 0 and report.sign_agreement == 0
    assert [item.zeros for item in report.contributions] == [1, 1]


@pytest.mark.parametrize(
    "recipe",
    [{}, {"method": "norm_clipped_mean"}, {"method": "model_stock"}, {"method": "median"},
     {"method": "ties"}, {"method": "sce", "parameters": {"select_topk": 0.5}},
     {"method": "della"}, {"method": "breadcrumbs"}, {"method": "krum"},
     {"dare": {"density": 0.5}}, {"optimizer": "adam"}, {"step_cap": 1e-3},
     {"method": "ties", "optimizer": "momentum", "step_cap": 1e-3}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "tied",
    [
        False,
        pytest.param(True),
    ],
)
def test_each_phase_reads_as_many_bytes_as_its_bar_is_long(
    tied: bool, recipe: dict[str, Any], tmp_path: Path
) -> None:
    base = t5(0, T5_NAMES) if tied else tiny_tensors()
    models = [t5(seed, T5_NAMES) for seed in (1, 2, 3)] if tied else three(base)
    place, contributions = write_line(tmp_path, base, models)
    wanted = Recipe.model_validate(recipe)
    read: dict[str, int] = {}

    def count(phase: str, size: int) -> None:
        read[phase] = read.get(phase, 0) + size

    fuse_folders(Job(place, contributions, wanted, tmp_path / "out"), 1, count)
    with Checkpoint.from_folder(place) as opened:
        spans = fused_tensors(opened, ()).spans.values()
        total = 3 * sum(span.elements * ITEM_BYTES[span.dtype] for span in spans)
    assert list(read) == phases(wanted, with_gram=True)
    assert read == dict.fromkeys(read, total)


def test_every_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_tensors()
    place, contributions = write_line(tmp_path, base, three(base))
    seen: list[str] = []
    opening = os.open

    def recorded(path: Any, *rest: Any) -> int:
        seen.append(str(path))
        return opening(path, *rest)

    monkeypatch.setattr(os, "open", recorded)
    fuse(place, contributions, tmp_path / "out")
    weights = [path for path in seen if path.endswith("model.safetensors")]
    assert sorted(weights) == sorted(set(weights))
