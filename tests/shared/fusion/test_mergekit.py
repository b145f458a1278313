"""mergekit's YAML: the same model as mergekit makes of it, or a sentence that names what is not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.folders import Contribution, Job, fuse_folders
from coldfusion_shared.fusion.mergekit import SUPPORTED, MergekitMerge, read_mergekit
from coldfusion_shared.schemas.recipes import Dare, Recipe
from tests.shared.checkpoints import BFLOAT16, Array, Tensors, write_file
from tests.shared.fusion.model_folders import read_model

HIDDEN, WORDS, INNER = 16, 24, 32
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
    "vocab_size": WORDS, "intermediate_size": INNER, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False,
    "max_position_embeddings": 32,
}  # fmt: skip
LAYER = "model.layers.0."
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (WORDS, HIDDEN),
    **{f"{LAYER}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"},
    f"{LAYER}mlp.gate_proj.weight": (INNER, HIDDEN),
    f"{LAYER}mlp.up_proj.weight": (INNER, HIDDEN),
    f"{LAYER}mlp.down_proj.weight": (HIDDEN, INNER),
    f"{LAYER}input_layernorm.weight": (HIDDEN,),
    f"{LAYER}post_attention_layernorm.weight": (HIDDEN,),
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (WORDS, HIDDEN),
}


def updates(rng: np.random.Generator, shape: tuple[int, ...]) -> list[Array]:
    """
    Return three updates that mostly pull the same way, as model_stock wants them.

    In none are two magnitudes nearly the same, so that ranks are plain.
    """
    size = int(np.prod(shape))
    common = rng.choice((-1, 1), size)
    magnitudes = [rng.permutation(np.arange(1, size + 1)) * (0.05 / size) for _ in "abc"]
    flips = [rng.choice((-1, 1), size, p=(0.15, 0.85)) for _ in "abc"]
    return [(m * f * common).reshape(shape) for m, f in zip(magnitudes, flips, strict=True)]


def llama(folder: Path, tensors: Tensors) -> None:
    write_file(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Llama `base` and a, b and c, finetuned from it."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    llama(folder / "base", base)
    moves = {name: updates(rng, shape) for name, shape in SHAPES.items()}
    for place, name in enumerate("abc"):
        moved = {key: (array + moves[key][place]).astype(np.float32) for key, array in base.items()}
        llama(folder / name, moved)
    return folder


@pytest.fixture(autouse=True)
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Paths in the YAML are relative, as mergekit's users write them."""
    monkeypatch.chdir(models)
    yield


def document(method: str, parameters: Mapping[str, Any], **top: Any) -> dict[str, Any]:
    """Return a YAML document; a list among `parameters` has a value for each of a, b and c."""
    entries = [
        {
            "model": name,
            "parameters": {key: value[place] for key, value in parameters.items()
                           if isinstance(value, list)},
        }
        for place, name in enumerate("abc")
    ]  # fmt: skip
    shared = {key: value for key, value in parameters.items() if not isinstance(value, list)}
    made: dict[str, Any] = {"merge_method": method, "models": entries, "dtype": "float32"}
    if method != "linear":
        made["base_model"] = "base"
    if shared:
        made["parameters"] = shared
    return {**made, **top}


def written(folder: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "merge.yml").write_text(text, encoding="utf-8")
    return folder / "merge.yml"


def ours(folder: Path, content: Any) -> dict[str, Array]:
    """Return what we make of the YAML."""
    merge = read_mergekit(written(folder, content))
    contributions = [Contribution(name, Path(name), prior=weight) for name, weight in merge.models]
    out = folder / "ours"
    base, recipe = Path(merge.base), merge.recipe
    fuse_folders(Job(base, contributions, recipe, out, dtype=merge.dtype, heads=True))
    return read_model(out)


def theirs(folder: Path, content: Any) -> dict[str, Array]:
    """Return what mergekit's own program makes of the YAML."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        config = MergeConfiguration.model_validate(
            yaml.safe_load(written(folder, content).read_text())
        )
        options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
        run_merge(config, str(folder / "theirs"), options)
    return read_model(folder / "theirs")


WEIGHTS = [0.5, 1.0, 2.0]
SAME = [
    ("linear", {"weight": 1}),
    ("linear", {"weight": WEIGHTS}),
    ("linear", {"weight": [0.2, 0.3, 0.5], "normalize": True}),
    ("task_arithmetic", {"weight": WEIGHTS}),
    ("task_arithmetic", {"weight": WEIGHTS, "normalize": True}),
    ("task_arithmetic", {"weight": 0.3, "lambda": 1.7}),
    ("ties", {"weight": 1, "density": 0.2}),
    ("ties", {"weight": WEIGHTS, "density": 0.5}),
    ("ties", {"weight": WEIGHTS, "density": [0.5, 0.5, 0.5], "normalize": False}),
    ("ties", {"weight": WEIGHTS, "density": 0.3, "lambda": 0.4, "int8_mask": True}),
    ("ties", {"weight": WEIGHTS}),
    ("breadcrumbs", {"weight": WEIGHTS, "density": 0.6, "gamma": 0.1}),
    ("breadcrumbs", {"weight": WEIGHTS, "density": 0.9}),
    ("breadcrumbs", {"weight": WEIGHTS, "density": 0.9, "normalize": True, "lambda": 2}),
    ("breadcrumbs_ties", {"weight": WEIGHTS, "density": 0.6, "gamma": 0.1}),
    ("breadcrumbs_ties", {"weight": WEIGHTS, "density": 0.6, "normalize": True}),
    ("sce", {}),
    ("sce", {"select_topk": 0.3}),
    ("model_stock", {}),
    ("model_stock", {"filter_wise": False}),
    ("dare_linear", {"weight": WEIGHTS, "density": 1.0}),
    ("dare_ties", {"weight": WEIGHTS}),
    ("della", {"weight": WEIGHTS, "density": 1.0}),
    ("della_linear", {"weight": WEIGHTS, "density": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "parameters"), SAME, ids=str)
def test_the_model_is_mergekits(method: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    content = document(method, parameters)
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    assert set(mine) == set(reference) == set(SHAPES)
    base = read_model(Path("base"))
    for name, array in reference.items():
        assert mine[name].dtype == array.dtype == np.float32
        assert np.allclose(mine[name], array, rtol=3e-7, atol=1e-7), name
    assert any(not np.array_equal(mine[name], base[name]) for name in SHAPES)


def test_every_method_that_both_have_is_compared() -> None:
    assert {method for method, _ in SAME} == set(SUPPORTED)


def test_linear_onto_a_base_among_the_models_is_mergekits(tmp_path: Path) -> None:
    content = document("linear", {"weight": WEIGHTS}, base_model="a")
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    for name, array in reference.items():
        assert np.allclose(mine[name], array, rtol=3e-7, atol=1e-7)


def test_the_base_among_the_models_counts_for_nothing_in_ties(tmp_path: Path) -> None:
    content = document("ties", {"weight": WEIGHTS, "density": 0.5})
    content["models"].insert(0, {"model": "base"})
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    for name, array in reference.items():
        assert np.allclose(mine[name], array, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("key", ["dtype", "out_dtype"])
def test_the_dtype_is_mergekits(key: str, tmp_path: Path) -> None:
    content = document("task_arithmetic", {"weight": 0.5})
    content = {**content, key: "bfloat16"}
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    for name, array in reference.items():
        assert mine[name].dtype == array.dtype == BFLOAT16
        difference = mine[name].astype(np.float64) - array.astype(np.float64)
        assert np.abs(difference).max() <= 0.03


# What is translated: methods that draw at random, and defaults.


def translated(folder: Path, method: str, parameters: dict[str, Any], **top: Any) -> MergekitMerge:
    return read_mergekit(written(folder, document(method, parameters, **top)))


RANDOM = [
    ("dare_linear", {"density": 0.4}, {"normalize": False}, "weighted_mean"),
    ("dare_linear", {"density": 0.4, "normalize": True}, {"normalize": True}, "weighted_mean"),
    ("dare_ties", {"density": 0.4, "lambda": 2},
     {"density": 1.0, "normalize": False, "scale": 2.0}, "ties"),
    ("della", {"density": 0.4, "epsilon": 0.1},
     {"density": 0.4, "epsilon": 0.1, "elect_sign": True, "normalize": True, "scale": 1.0},
     "della"),
    ("della_linear", {"density": 0.4, "rescale": True},
     {"density": 0.4, "epsilon": 0.15, "elect_sign": False, "normalize": False, "scale": 1.0},
     "della"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "given", "parameters", "name"), RANDOM, ids=str)
def test_what_draws_at_random_is_translated(
    method: str, given: dict[str, Any], parameters: dict[str, Any], name: str, tmp_path: Path
) -> None:
    merge = translated(tmp_path, method, {"weight": WEIGHTS, **given})
    dare = Dare(density=0.4) if method.startswith("dare") else None
    assert merge.recipe.method == name
    assert merge.recipe.parameters == parameters
    assert merge.recipe.dare == dare
    assert merge.models == [("a", 0.5), ("b", 1.0), ("c", 2.0)]
    assert merge.base == "base" and merge.dtype == "F32"


@pytest.mark.parametrize(("method", "given", "_parameters", "_name"), RANDOM, ids=str)
def test_what_draws_at_random_fuses(
    method: str, given: dict[str, Any], _parameters: Any, _name: str, tmp_path: Path
) -> None:
    mine = ours(tmp_path, document(method, {"weight": WEIGHTS, **given}))
    base, models = read_model(Path("base")), [read_model(Path(name)) for name in "abc"]
    for name in SHAPES:
        largest = sum(np.abs(model[name] - base[name]) for model in models) * 2 * 2 / 0.2
        assert (np.abs(mine[name] - base[name]) <= largest + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "code"),
    [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16"), ("float64", "F64")],
)
def test_dtypes_are_named_as_torch_names_them(name: str, code: str, tmp_path: Path) -> None:
    assert translated(tmp_path, "linear", {"weight": 1}, dtype=name).dtype == code
    both = translated(tmp_path, "linear", {"weight": 1}, dtype="float32", out_dtype=name)
    assert both.dtype == code


def test_without_a_dtype_the_bases_is_kept(tmp_path: Path) -> None:
    content = document("linear", {"weight": 1})
    del content["dtype"]
    merge = read_mergekit(written(tmp_path, content))
    assert merge.dtype is None and merge.base == "a"
    assert merge.recipe == Recipe(method="weighted_mean")


@pytest.mark.parametrize("source", ["base", None])
def test_the_bases_tokenizer_may_be_asked_for(source: str | None, tmp_path: Path) -> None:
    translated(tmp_path, "ties", {"weight": 1, "density": 0.5}, tokenizer_source=source)


# What is refused.


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("slerp", {"t": 0.5}, {}, ["slerp"]),
    ("passthrough", {}, {}, ["passthrough"]),
    ("nonsense", {}, {}, ["nonsense"]),
    ("ties", {"weight": [[0, 1], 1, 1], "density": 0.5}, {}, ["a", "weight", "gradient"]),
    ("ties", {"weight": 1, "density": [[0.1, 0.9]] * 3}, {}, ["density", "gradient"]),
    ("ties", {"weight": [{"filter": "mlp", "value": 1}, 1, 1]}, {}, ["a", "weight", "filter"]),
    ("ties", {"weight": 1, "density": "half"}, {}, ["density", "number"]),
    ("ties", {"weight": True, "density": 0.5}, {}, ["weight", "number"]),
    ("ties", {"weight": 1, "densty": 0.5}, {}, ["densty"]),
    ("ties", {"weight": 1, "densty": [0.1, 0.1, 0.1]}, {}, ["a", "densty"]),
    ("ties", {"weight": 1, "density": [0.1, 0.2, 0.1]}, {}, ["density", "same"]),
    ("ties", {"weight": 1, "normalize": 1}, {}, ["normalize", "true or false"]),
    ("ties", {"weight": 1, "rescale": True}, {}, ["rescale", "ties"]),
    ("dare_ties", {"weight": 1, "density": 0.5, "rescale": False}, {}, ["rescale", "dare_ties"]),
    ("breadcrumbs", {"weight": 1, "gamma": [0.1, 0.2, 0.3]}, {}, ["gamma", "same"]),
    ("della", {"weight": 1, "epsilon": [0.1, 0.2, 0.3]}, {}, ["epsilon", "same"]),
    ("linear", {"weight": 1, "normalize": False}, {}, ["normalize", "task_arithmetic"]),
    ("linear", {}, {}, ["a", "weight", "missing"]),
    ("ties", {"density": 0.5}, {}, ["a", "weight", "missing"]),
    ("task_arithmetic", {"weight": [1, None, 1]}, {}, ["b", "weight", "missing"]),
    ("model_stock", {"filter_wise": True}, {}, ["filter_wise"]),
    ("sce", {"weight": 1}, {}, ["weight"]),
    ("ties", {"weight": 1}, {"tokenizer_source": "union"}, ["tokenizer_source", "union"]),
    ("ties", {"weight": 1}, {"tokenizer": {"source": "base"}}, ["tokenizer"]),
    ("ties", {"weight": 1}, {"chat_template": "auto"}, ["chat_template"]),
    ("ties", {"weight": 1}, {"base_model": None}, ["ties", "base_model"]),
    ("ties", {"weight": 1}, {"dtype": "int8"}, ["dtype", "int8"]),
    ("ties", {"weight": 1}, {"dtype": "float"}, ["dtype", "'float'"]),
    ("ties", {"weight": 1}, {"models": []}, ["models"]),
    ("ties", {"weight": 1}, {"models": [{"model": "base"}]}, ["No model but the base"]),
    ("ties", {"weight": 1}, {"models": [{"parameters": {}}]}, ["models.0.model"]),
    ("ties", {"weight": 1}, {"slices": [{"sources": []}]}, ["slices"]),
    ("ties", {"weight": 1}, {"merge_method": None}, ["merge_method"]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "parameters", "top", "words"), REFUSED, ids=str)
def test_what_would_come_out_differently_is_refused(
    method: str, parameters: Any, top: Any, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        translated(tmp_path, method, parameters, **top)
    said = f"{caught.value.message} {caught.value.hint or ''}"
    for word in words:
        assert word in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "text",
    ["", "a", "- a", "merge_method: ties\nmodels: {", "merge_method: [", "\t", "{", "null",
     "merge_method: !!python/object:os.system x", "&a [*a, *b]"],
)  # fmt: skip
def test_bad_yaml_is_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"merge\.yml") as caught:
        read_mergekit(written(tmp_path, text))
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_text_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "merge.yml").write_bytes(b"merge_method: \xff")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_mergekit(tmp_path / "merge.yml")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_mergekit(tmp_path / "nowhere.yml")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_mergekit(tmp_path)


@pytest.mark.parametrize("value", ["2024-13-45", "!!int x", "!!float x"])
def test_a_value_that_yaml_cannot_make_is_said(value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        read_mergekit(written(tmp_path, f"merge_method: ties\ndtype: {value}\n"))


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("task_arithmetic", {"lambda": 0}), ("task_arithmetic", {"lambda": -1}),
     ("dare_linear", {"density": 0}), ("dare_ties", {"density": 1.5}),
     ("dare_linear", {"density": 0.5, "lambda": 1000})],
    ids=str,
)  # fmt: skip
def test_a_number_out_of_range_is_refused(
    method: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest):
        translated(tmp_path, method, {"weight": 1, **parameters})


def test_a_models_own_parameter_comes_before_the_shared_one(tmp_path: Path) -> None:
    content = document("ties", {"weight": WEIGHTS, "density": [0.4, 0.4, 0.4]})
    content["parameters"] = {"density": 0.9}
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    for name, array in reference.items():
        assert np.allclose(mine[name], array, rtol=3e-7, atol=1e-7)


def test_some_models_may_leave_a_parameter_to_the_shared_ones(tmp_path: Path) -> None:
    content = document("task_arithmetic", {"weight": WEIGHTS})
    del content["models"][1]["parameters"]
    content["parameters"] = {"weight": 0.25}
    mine, reference = ours(tmp_path, content), theirs(tmp_path, content)
    for name, array in reference.items():
        assert np.allclose(mine[name], array, rtol=3e-7, atol=1e-7)


def test_a_negative_weight_is_refused_when_it_fuses(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="weights must be at least 0"):
        ours(tmp_path, document("task_arithmetic", {"weight": [1, -0.5, 1]}))
    assert not (tmp_path / "ours").exists()


def test_a_number_out_of_a_methods_range_is_refused_when_it_fuses(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="density"):
        ours(tmp_path, document("ties", {"weight": 1, "density": 0}))
    assert not (tmp_path / "ours").exists()
