from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.data import Split, TextDataset, load_dataset
from coldfusion_shared.errors import BadData, BadModel, TrainingFailed
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.pretrained import load_tokenizer
from coldfusion_shared.tasks.squad import exact_match, f1, normalized
from coldfusion_shared.tasks.windows import Window, best_span, windows
from tests.shared.tasks.rows import read_rows, write_parquet, write_rows
from tests.tiny_models import tiny_bert, tiny_model

TASK = task_named("question-answering")
CONTEXT = "the film was great. the cold film was awful, and not warm."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def row(answers: Any, context: str = CONTEXT, question: str = "how was it?") -> dict[str, Any]:
    return {"question": question, "context": context, "answers": answers}


def rows(answers: Any, count: int = 20) -> list[dict[str, Any]]:
    return [row(answers, question=f"how was it {i}?") for i in range(count)]


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["great", "the film"], "answer_start": [13, 0]},
        [{"text": "great", "answer_start": 13}, {"text": "the film", "answer_start": 0}],
        ["great", "the film"],
        ["great", " great", "the film "],
    ],
)
def test_answers_of_every_form(tmp_path: Path, answers: Any) -> None:
    dataset = read_rows(tmp_path, rows(answers))
    assert (dataset.task, dataset.labels) == ("question-answering", ())
    assert set(dataset.train["answers"]) == {((13, "great"), (0, "the film"))}
    assert sum(map(len, dataset.splits.values())) == 20


def test_parquet_and_jsonl_give_the_same(tmp_path: Path) -> None:
    squad = rows({"text": ["great"], "answer_start": [13]})
    squad[3]["answers"] = {"text": [], "answer_start": []}
    jsonl = write_rows(tmp_path / "squad.jsonl", squad)
    parquet = write_parquet(tmp_path / "squad.parquet", squad)
    one, other = (load_dataset(str(path)) for path in (jsonl, parquet))
    assert one.digest == other.digest


@pytest.mark.parametrize("nothing", ["", None, [], {"text": [], "answer_start": []}])
def test_an_answer_may_be_none(tmp_path: Path, nothing: Any) -> None:
    told = [*rows("great"), *[row(nothing, question=f"why {i}?") for i in range(20)]]
    dataset = read_rows(tmp_path, told)
    answers = [one for split in dataset.splits.values() for one in split["answers"]]
    assert sorted(answers) == [()] * 20 + [((13, "great"),)] * 20


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("good", r"line 1: the answer 'good' is not in the context\."),
        ({"text": ["great"], "answer_start": [14]}, "'great' is not at answer_start 14 of the"),
        ({"text": ["great"], "answer_start": [-1]}, "'great' is not at answer_start -1 of the"),
        ({"text": ["great"], "answer_start": [13, 0]}, "column 'answers' holds .* is no answer"),
        ({"answer_start": [13]}, "which is no answer"),
        ([7], r"column 'answers' holds 7, which is no answer"),
    ],
)
def test_answers_that_cannot_be(tmp_path: Path, answers: Any, message: str) -> None:
    with pytest.raises(BadData, match=message) as caught:
        read_rows(tmp_path, rows(answers))
    assert caught.value.hint


def test_questions_that_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no training question has an answer"):
        read_rows(tmp_path, rows(""))


def test_yes_and_no_is_another_task(tmp_path: Path) -> None:
    told = [{"question": f"{i}?", "passage": CONTEXT, "answer": i % 2 == 0} for i in range(20)]
    dataset = read_rows(tmp_path, told)
    assert (dataset.task, dataset.labels) == ("classification", ("False", "True"))
    assert set(dataset.train["text_pair"]) == {CONTEXT}


# The rules of the official evaluation script, worked out by hand.
@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an  apple a day ", "apple day"),
        ("U.S.-led", "usled"),
        ("theatre and anthem", "theatre and anthem"),
        ("don't", "dont"),
        ("The", ""),
        ("caf\u00e9 \u2014 \u00dcber", "caf\u00e9 \u2014 \u00fcber"),
    ],
)
def test_normalisation_is_squads(answer: str, plain: str) -> None:
    assert normalized(answer) == plain


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "share"),
    [
        ("Denver Broncos", ["Denver Broncos", "The Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),
        ("the cat sat", ["a cat sat down"], 0, 0.8),
        ("so so", ["so"], 0, 2 / 3),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("", ["the"], 1, 1),
    ],
)
def test_exact_match_and_f1(answer: str, golds: list[str], exact: float, share: float) -> None:
    assert exact_match(answer, golds) == exact
    assert f1(answer, golds) == pytest.approx(share)


def test_windows_cover_every_token_and_overlap(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    contexts = [" ".join(["film"] * 9), " ".join(f"a{i}" for i in range(60))]
    cut = windows(tokenizer, ["was it good?", "  how?"], contexts, 24)
    for example, context in enumerate(contexts):
        ours = [window for window in cut if window.example == example]
        assert all(len(window.offsets) <= 24 for window in ours)
        found = [[span for span in window.offsets if span] for window in ours]
        expected = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
        assert sorted({span for spans in found for span in spans}) == expected["offset_mapping"]
        for before, after in zip(found, found[1:], strict=False):
            assert len(set(before) & set(after)) == 6
    assert len([window for window in cut if window.example == 0]) == 1


def test_a_long_question_leaves_room_for_its_context(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    (window, *_) = windows(tokenizer, [" ".join(["good"] * 50)], ["the film was great"], 24)
    assert sum(span is not None for span in window.offsets) == 4
    assert window.inputs["input_ids"].count(tokenizer.convert_tokens_to_ids("good")) == 9


def test_too_short_for_any_context(base: Path) -> None:
    with pytest.raises(TrainingFailed, match="8 tokens are too few") as caught:
        windows(load_tokenizer(base), ["how?"], [CONTEXT], 8)
    assert "--max-length" in str(caught.value.hint)


def test_a_tokenizer_without_offsets(base: Path) -> None:
    class Slow:
        is_fast = False

    split = Split({"question": ("how?",), "context": (CONTEXT,), "answers": ((),)})
    with pytest.raises(BadModel, match="which characters"):
        TASK.encode(Slow(), split, 24)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2", "t5"])
def test_labels_are_the_answers_tokens(tmp_path: Path, kind: str) -> None:
    tokenizer = load_tokenizer(tiny_model(tmp_path, kind))
    long = "a film " * 20 + CONTEXT
    place = long.index("awful")
    split = Split({"question": ("how?",), "context": (long,), "answers": (((place, "awful"),),)})
    encoded = TASK.encode(tokenizer, split, 32)
    assert len(encoded) > 1
    said = set()
    for example in encoded:
        first, last = example["start_positions"], example["end_positions"]
        ids = example["input_ids"][first : last + 1]
        said.add(tokenizer.decode(ids).strip() if first else "")
    # Windows without the answer point to the first token.
    assert said == {"", "awful"}


@given(st.data())
def test_the_best_span_is_that_of_brute_force(data: st.DataObject) -> None:
    before, inside, after = (data.draw(st.integers(0, 3)) for _ in range(3))
    offsets = [None] * (before + 1) + [(2 * i, 2 * i + 1) for i in range(inside)] + [None] * after
    drawn = random.Random(data.draw(st.integers(0, 10**6)))
    size = len(offsets) + data.draw(st.integers(0, 2))
    starts, ends = (np.array([drawn.gauss(0, 1) for _ in range(size)]) for _ in range(2))
    longest = data.draw(st.integers(1, 4))
    brute = [
        (float(starts[i] + ends[j]), offsets[i][0], offsets[j][1])  # type: ignore[index]
        for i in range(len(offsets))
        for j in range(i, min(i + longest, len(offsets)))
        if offsets[i] and offsets[j]
    ]
    found = best_span(Window(0, {}, tuple(offsets)), starts, ends, longest)
    if not brute:
        assert found is None
    else:
        assert found is not None
        assert (found.score, found.start, found.stop) == pytest.approx(max(brute))


def scored(base: Path, answers: tuple[Any, ...], likely: dict[int, str]) -> dict[str, float]:
    """Score logits that are for these stretches, "" for no answer; long contexts."""
    tokenizer = load_tokenizer(base)
    context = "a film " * 20 + CONTEXT
    split = Split(
        {
            "question": ("how?",) * len(answers),
            "context": (context,) * len(answers),
            "answers": tuple(
                tuple((context.index(text), text) for text in told) for told in answers
            ),
        }
    )
    scoring = TASK.scoring(tokenizer, split, 32)
    wanted = Split(
        {
            **split.columns,
            "answers": tuple(
                ((context.index(likely[i]), likely[i]),) if likely[i] else ()
                for i in range(len(answers))
            ),
        }
    )
    targets = TASK.scoring(tokenizer, wanted, 32).examples
    shape = (len(targets), max(len(example["input_ids"]) for example in targets))
    # As the Trainer fills up what is shorter.
    starts, ends = np.full(shape, -100.0), np.full(shape, -100.0)
    for i, example in enumerate(targets):
        size = len(example["input_ids"])
        starts[i, :size] = ends[i, :size] = -5.0
        found = example["start_positions"] != 0
        starts[i, example["start_positions"]] = 5.0 if found else 1.0
        ends[i, example["end_positions"]] = 5.0 if found else 1.0
    return scoring.score((starts, ends), None)


def test_scores_are_over_all_windows_of_an_example(base: Path) -> None:
    right = scored(base, (("great",), ("awful", "cold film")), {0: "great", 1: "cold film"})
    assert right == {"F1": 100.0, "exact match": 100.0}
    half = scored(base, (("great",), ("cold film",)), {0: "great", 1: "film"})
    assert half["exact match"] == 50.0


def test_no_answer_is_an_answer_where_some_have_none(base: Path) -> None:
    assert scored(base, (("great",), ()), {0: "great", 1: ""})["F1"] == 100.0
    assert scored(base, (("great",), ()), {0: "great", 1: "awful"})["F1"] == 50.0
    assert scored(base, (("great",), ()), {0: "", 1: ""})["exact match"] == 50.0


def toy(size: int, seed: int) -> Split:
    drawn = random.Random(seed)
    contexts, answers = [], []
    for _ in range(size):
        words = [drawn.choice(["the", "film", "was", "is"]) for _ in range(drawn.randint(4, 9))]
        words.insert(drawn.randrange(len(words)), drawn.choice(["great", "awful", "warm"]))
        context = " ".join(words)
        said = next(word for word in words if word in ("great", "awful", "warm"))
        contexts.append(context)
        answers.append(((context.index(said), said),))
    return Split(
        {"question": ("good?",) * size, "context": tuple(contexts), "answers": tuple(answers)}
    )


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_it_learns(tmp_path: Path, kind: str) -> None:
    base = tiny_model(tmp_path / "base", kind)
    dataset = TextDataset("films", TASK.name, (), toy(96, 0), toy(24, 1), toy(24, 2))
    settings = FinetuneSettings(epochs=12, lr=5e-3, batch_size=16, max_length=24, seed=1)
    result = finetune(base, dataset, settings, tmp_path / "out")
    assert (result.task, result.metric) == ("question-answering", "F1")
    assert result.test > 90
    assert result.metrics["exact match"] > 80
