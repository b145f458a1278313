"""Body and head, and the alignment of names between a bare encoder and a finetuned model."""

from __future__ import annotations

import pytest

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.weights.body import align, base_names, body, check_body, is_head
from coldfusion_shared.weights.header import TensorSpan

BERT = ["embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.weight"]
POOLER = "pooler.dense.weight"
T5 = ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.embed.weight"]
GPT2 = ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "ln_f.weight"]


def span(name: str, dtype: str = "F32", shape: tuple[int, ...] = (2, 3)) -> TensorSpan:
    return TensorSpan(name, dtype, shape, 0, 0)


def spans(*names: str) -> dict[str, TensorSpan]:
    return {name: span(name) for name in names}


def under(module: str, names: list[str]) -> list[str]:
    return [f"{module}.{name}" for name in names]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BERT, BERT),
        (BERT, under("bert", BERT)),
        (under("bert", BERT), BERT),
        (under("bert", BERT), under("bert", BERT)),
        (T5, T5),
        (T5, under("transformer", T5)),
        (GPT2, under("transformer", GPT2)),
        (under("transformer", GPT2), GPT2),
        # As a Llama's head for question answering calls it.
        (under("model", GPT2), under("transformer", GPT2)),
    ],
    ids=lambda names: names[0],
)
def test_names_align_whatever_module_they_are_under(ours: list[str], theirs: list[str]) -> None:
    heads = ["classifier.weight", "lm_head.weight", "score.weight"]
    assert align(ours, [*heads, *theirs]) == dict(zip(ours, theirs, strict=True))


def test_a_whole_match_under_a_module_wins_over_a_part_that_is_named_alike() -> None:
    theirs = [*under("bert", BERT), BERT[0]]
    assert align(BERT, theirs) == dict(zip(BERT, under("bert", BERT), strict=True))


def test_an_absent_pooler_is_left_out_of_the_alignment() -> None:
    assert align([*BERT, POOLER], under("bert", BERT)) == dict(
        zip(BERT, under("bert", BERT), strict=True)
    )


def test_nothing_aligns_with_another_architecture() -> None:
    assert align(BERT, GPT2) == {}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BERT, BERT),
        (BERT, under("bert", BERT)),
        (under("bert", BERT), BERT),
        (under("bert", BERT), under("bert", BERT)),
        (GPT2, under("transformer", GPT2)),
        (under("transformer", GPT2), GPT2),
    ],
)
def test_what_came_whole_gets_the_bases_names(ours: list[str], theirs: list[str]) -> None:
    head = ["classifier.weight", "classifier.bias"]
    found = base_names([*ours, "cls.bias"], [*theirs, *head])
    assert [found[name] for name in theirs] == ours
    assert [found[name] for name in head] == head


@pytest.mark.parametrize(
    "theirs",
    [
        [],
        GPT2,
        # Which of the two is meant nobody knows.
        [*under("bert", BERT), BERT[0]],
        [*BERT, *under("other", BERT[:1])],
        # Some modules of their own are no reason to look longer.
        [f"m{number}.{BERT[0]}" for number in range(20_000)],
    ],
    ids=["nothing", "another", "twice", "once more", "many"],
)
def test_what_is_named_in_no_one_way_keeps_its_names(theirs: list[str]) -> None:
    found = base_names(BERT, theirs)
    assert list(found) == theirs
    changed = [name for name in theirs if found[name] != name]
    assert len(changed) <= 1


def test_nothing_aligns_with_nothing() -> None:
    assert align([], []) == {}
    assert align(BERT, []) == {}


@pytest.mark.parametrize("name", ["classifier.weight", "lm_head.bias", "cls.predictions.bias",
                                  "score.weight", "qa_outputs.bias", "classification_head.x",
                                  "final_logits_bias"])  # fmt: skip
def test_task_modules_are_heads(name: str) -> None:
    assert is_head(name)


@pytest.mark.parametrize("name", [*BERT, POOLER, *T5, *GPT2, "bert.classifier.weight", "scores.w"])
def test_all_else_is_body(name: str) -> None:
    assert not is_head(name)


def test_the_body_is_floats_outside_of_heads() -> None:
    tensors = {
        "w": span("w"),
        "half": span("half", "BF16"),
        "positions": span("positions", "I64"),
        "mask": span("mask", "BOOL"),
        "classifier.weight": span("classifier.weight"),
    }
    assert list(body(tensors)) == ["w", "half"]


BASE = {**spans("a", "b", "classifier.weight"), "ids": span("ids", "I64")}


@pytest.mark.parametrize(
    "candidate",
    [
        spans("a", "b"),
        spans("b", "a"),
        {**spans("a", "b"), "ids": span("ids", "I64")},
        {**spans("a", "b"), "classifier.weight": span("classifier.weight", shape=(9,))},
    ],
)
def test_a_body_fits_its_base(candidate: dict[str, TensorSpan]) -> None:
    check_body(BASE, candidate)


def test_float32_fits_a_base_of_a_smaller_dtype_and_not_the_other_way() -> None:
    check_body({"a": span("a", "BF16")}, {"a": span("a", "F32")})
    check_body({"a": span("a", "BF16")}, {"a": span("a", "BF16")})
    for base, candidate in [("F32", "BF16"), ("F16", "BF16"), ("F32", "F64"), ("F32", "I32")]:
        with pytest.raises(IncompatibleWeights):
            check_body({"a": span("a", base)}, {"a": span("a", candidate)})


def test_weights_that_were_rounded_are_refused_with_what_to_do() -> None:
    with pytest.raises(IncompatibleWeights, match="2 BF16 .a, b., where the base has F32") as (
        caught
    ):
        check_body(
            {"a": span("a"), "b": span("b")}, {"a": span("a", "BF16"), "b": span("b", "BF16")}
        )
    assert caught.value.hint is not None and "torch.float32" in caught.value.hint


def test_all_differences_are_told_in_one_message() -> None:
    candidate = {"b": span("b", shape=(3, 2)), "c": span("c"), "d": span("d", "F16")}
    with pytest.raises(IncompatibleWeights) as caught:
        check_body({**BASE, "d": span("d")}, candidate)
    message = caught.value.message
    assert "1 missing (a)" in message
    assert "1 not in the base (c)" in message
    assert "b (F32 [3, 2] for F32 [2, 3])" in message
    assert "d (F16 [2, 3] for F32 [2, 3])" in message
    assert caught.value.tensors == ("a", "c", "b", "d")
    assert caught.value.hint is not None


def test_of_many_differences_a_few_are_named() -> None:
    base = spans(*(f"t{i}" for i in range(100)))
    with pytest.raises(IncompatibleWeights) as caught:
        check_body(base, {})
    assert "100 missing (t0, t1, t2, ...)" in caught.value.message
    assert len(caught.value.message) < 300
    assert len(caught.value.tensors) == 10
