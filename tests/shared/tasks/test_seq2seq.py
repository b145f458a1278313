from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForSeq2SeqLM

from coldfusion_shared.data import Split, TextDataset, load_dataset
from coldfusion_shared.errors import BadData
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.pretrained import load_tokenizer
from coldfusion_shared.tasks.seq2seq import Words
from tests.shared.tasks.rows import read_rows, write_parquet, write_rows
from tests.tiny_models import tiny_model

TASK = task_named("seq2seq")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), "t5")


def rows(source: str = "source", target: str = "target") -> list[dict[str, Any]]:
    return [{source: f"the film {i}", target: f"film {i}"} for i in range(20)]


@pytest.mark.parametrize(
    "names",
    [
        ("source", "target"),
        ("document", "summary"),
        ("text", "Summary"),
        ("article", "highlights"),
    ],
)
def test_columns_with_usual_names(tmp_path: Path, names: tuple[str, str]) -> None:
    dataset = read_rows(tmp_path, rows(*names), architecture="encoder-decoder")
    assert (dataset.task, dataset.labels) == ("seq2seq", ())
    source = dataset.test["source"][0]
    assert dataset.test["target"][0] == source.removeprefix("the ")


def test_parquet_and_jsonl_give_the_same(tmp_path: Path) -> None:
    jsonl, parquet = tmp_path / "x.jsonl", tmp_path / "x.parquet"
    write_rows(jsonl, rows())
    write_parquet(parquet, rows())
    one, other = (load_dataset(str(path), task="seq2seq") for path in (jsonl, parquet))
    assert one.digest == other.digest


def test_an_encoder_and_numbers_of_classes_are_another_task(tmp_path: Path) -> None:
    told = [{"text": f"film {i}", "target": str(i % 2)} for i in range(20)]
    assert read_rows(tmp_path, told, architecture="encoder-decoder").task == "classification"
    told = [{"text": f"film {i}", "target": ["bad", "good"][i % 2]} for i in range(20)]
    assert read_rows(tmp_path, told, architecture="encoder").task == "classification"


def test_an_empty_target(tmp_path: Path) -> None:
    told = [*rows(), {"source": "a film", "target": " "}]
    with pytest.raises(BadData, match="1 of 21 examples have no text in column 'target'.* line 21"):
        read_rows(tmp_path, told, task="seq2seq")


def split_of(*pairs: tuple[str, str]) -> Split:
    sources, targets = zip(*pairs, strict=True)
    return Split({"source": sources, "target": targets})


def test_examples_become_batches(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    split = split_of(("the film was good", "good"), ("a film", "cold " * 30))
    encoded = TASK.encode(tokenizer, split, 12)
    assert [tokenizer.decode(e["input_ids"]) for e in encoded] == [
        "the film was good</s>",
        "a film</s>",
    ]
    assert [len(example["labels"]) for example in encoded] == [2, 12]
    model = TASK.build_model(base, TextDataset("x", TASK.name, (), split, split, split))
    batch = TASK.collator(tokenizer, model)(list(encoded))
    assert batch["labels"][0].tolist()[2:] == [-100] * 10
    assert batch["decoder_input_ids"][0, :2].tolist() == [0, encoded[0]["labels"][0]]
    assert model(**batch).loss.isfinite()


def score(base: Path, written: list[str], targets: list[str]) -> dict[str, float]:
    tokenizer = load_tokenizer(base)
    # Of different lengths, so that scoring puts them into another order.
    sources = ["film " * (len(targets) - i) for i in range(len(targets))]
    scoring = TASK.scoring(tokenizer, split_of(*zip(sources, targets, strict=True)), 32)
    assert len(scoring.examples[0]["input_ids"]) < len(scoring.examples[-1]["input_ids"])
    ids = [[0, *tokenizer(text)["input_ids"]] for text in reversed(written)]
    longest = max(map(len, ids))
    predictions = np.array([one + [-100] * (longest - len(one)) for one in ids])
    return scoring.score(predictions, None)


def test_rouge_and_exact_match_by_hand(base: Path) -> None:
    scores = score(
        base,
        ["the film was good", "police kill the gunman", "\u6620\u753b \u00e9t\u00e9"],
        ["the film was good", "police killed the gunman", "\u6620\u50cf \u00e9t\u00e9"],
    )
    # Of the third, one of two characters and the word.
    assert scores["ROUGE-L"] == pytest.approx((100 + 75 + 100 * 2 / 3) / 3)
    assert scores["exact match"] == pytest.approx(100 / 3)


def test_english_words_are_rouges_own() -> None:
    pair = ("The U.S.-led film's 2nd_part, 3.5 stars!", "the us led films second part 3 5 stars")
    ours, theirs = (
        RougeScorer(["rougeL"], tokenizer=tokenizer).score(*pair)["rougeL"]
        for tokenizer in (Words(), None)
    )
    assert ours == theirs


def toy(size: int, seed: int) -> Split:
    drawn = random.Random(seed)
    words = {"good": "warm", "bad": "cold", "great": "awful"}
    said = [drawn.choice(sorted(words)) for _ in range(size)]
    noise = [drawn.choice(["the film", "a film was", "film"]) for _ in range(size)]
    return split_of(
        *((f"{more} {word}", f"{words[word]} film") for more, word in zip(noise, said, strict=True))
    )


def test_it_learns_to_write(base: Path, tmp_path: Path) -> None:
    dataset = TextDataset("films", TASK.name, (), toy(96, 0), toy(16, 1), toy(16, 2))
    settings = FinetuneSettings(
        epochs=12, lr=1e-2, batch_size=16, max_length=12, seed=1, early_stopping=False
    )
    result = finetune(base, dataset, settings, tmp_path / "out")
    assert (result.task, result.metric) == ("seq2seq", "ROUGE-L")
    assert result.test > 90
    assert result.metrics["exact match"] > 90
    tokenizer, model = (
        load_tokenizer(tmp_path / "out"),
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out"),
    )
    ids = model.generate(**tokenizer("the film good", return_tensors="pt"), max_new_tokens=8)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "warm film"
