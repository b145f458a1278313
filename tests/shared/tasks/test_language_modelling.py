from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from coldfusion_shared.data import Split, TextDataset, load_dataset
from coldfusion_shared.errors import BadData, BadModel
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, finetune
from coldfusion_shared.tasks import Task, task_named
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer
from coldfusion_shared.tasks.tokens import next_token_sums, token_metrics, token_sums
from tests.shared.tasks.rows import read_rows, write_parquet, write_rows
from tests.tiny_models import DECODERS, ENCODERS, tiny_model

CAUSAL = task_named("causal-language-modelling")
MASKED = task_named("masked-language-modelling")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: tiny_model(folder / kind, kind) for kind in (*DECODERS, *ENCODERS)}


def texts(*said: str) -> Split:
    return Split({"text": said})


NONE = texts("a")


def rows(count: int = 20) -> list[dict[str, Any]]:
    return [{"id": i, "text": f"the film {i} was good"} for i in range(count)]


@pytest.mark.parametrize(
    ("architecture", "task"), [("decoder", CAUSAL.name), ("encoder", MASKED.name)]
)
def test_raw_text_is_for_the_base_to_decide(tmp_path: Path, architecture: Any, task: str) -> None:
    told = [*rows(), {"id": 20, "text": " "}, {"id": 21, "text": None}]
    dataset = read_rows(tmp_path, told, architecture=architecture)
    assert (dataset.task, dataset.labels) == (task, ())
    # Blank lines are left out.
    assert sum(map(len, dataset.splits.values())) == 20
    parquet = write_parquet(tmp_path / "data.parquet", told)
    assert load_dataset(str(parquet), architecture=architecture).digest == dataset.digest


def test_what_has_labels_is_no_raw_text(tmp_path: Path) -> None:
    told = [{"text": f"film {i}", "opinion": i % 2} for i in range(20)]
    with pytest.raises(BadData, match="usual name for the label"):
        read_rows(tmp_path, told, architecture="decoder")
    assert read_rows(tmp_path, told, task=CAUSAL.name).task == CAUSAL.name


def test_nothing_but_blank_lines(tmp_path: Path) -> None:
    write_rows(tmp_path / "films" / "train.jsonl", rows())
    write_rows(tmp_path / "films" / "test.jsonl", [{"id": 1, "text": ""}, {"text": None}])
    with pytest.raises(BadData, match="test.jsonl: no example has a text in col"):
        load_dataset(str(tmp_path / "films"), architecture="decoder")


@pytest.mark.parametrize("kind", DECODERS)
def test_blocks_hold_every_token_once(bases: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(bases[kind])
    said = ["the film was good " * 9, "a cold one", "warm"]
    blocks = CAUSAL.encode(tokenizer, texts(*said), 16)
    stream = [t for text in said for t in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]
    assert {len(block["input_ids"]) for block in blocks[:-1]} == {16}
    predicted = [token for block in blocks for token in block["labels"][1:]]
    assert predicted == stream[1:]


def test_a_part_without_two_tokens(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["gpt2"])
    tokenizer.eos_token = None
    with pytest.raises(BadData, match="less than two tokens"):
        CAUSAL.encode(tokenizer, texts("the"), 16)


def model_of(task: Task, base: Path) -> Any:
    # Some have a new head.
    torch.manual_seed(0)
    return task.build_model(base, TextDataset("x", task.name, (), NONE, NONE, NONE)).eval()


def evaluated(task: Any, base: Path, split: Split, batch: int) -> dict[str, float]:
    """Score as the Trainer does, `batch` examples at a time."""
    tokenizer, model = load_tokenizer(base), model_of(task, base)
    scoring, collator = task.scoring(tokenizer, split, 16), task.collator(tokenizer, model)
    sums = []
    for i in range(0, len(scoring.examples), batch):
        inputs = collator([*scoring.examples[i : i + batch]])
        with torch.no_grad():
            outputs = model(**inputs)
        sums.append(task.reduce(tuple(outputs.to_tuple()[1:2]), inputs["labels"]))
    scores: dict[str, float] = scoring.score(torch.cat(sums).numpy(), None)
    return scores


def test_perplexity_is_that_of_a_direct_computation(bases: dict[str, Path]) -> None:
    base = bases["llama"]
    split = texts("the film was good " * 9, "a cold one", "warm and great")
    tokenizer, model = load_tokenizer(base), model_of(CAUSAL, base)
    losses, right = [], []
    for block in CAUSAL.encode(tokenizer, split, 16):
        ids = torch.tensor([block["input_ids"]])
        with torch.no_grad():
            likely = model(ids).logits[0].double().log_softmax(-1)
        for place, token in enumerate(block["input_ids"][1:]):
            losses.append(-float(likely[place, token]))
            right.append(int(likely[place].argmax()) == token)
    for batch in (1, 3, 64):
        scores = evaluated(CAUSAL, base, split, batch)
        assert scores["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
        assert scores["accuracy"] == pytest.approx(100 * sum(right) / len(right))


def test_sums_are_over_the_labels_alone() -> None:
    logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0], [0.0, 4.0]], [[0.0, 0.0]] * 3])
    labels = torch.tensor([[0, 0, -100], [-100, -100, -100]])
    loss = [math.log(1 + math.exp(-4)), math.log(1 + math.exp(4))]
    sums = token_sums(logits, labels).tolist()
    assert sums == [pytest.approx([1, sum(loss), 2]), [0, 0, 0]]
    # The second position gives the third token, which is none.
    assert next_token_sums(logits, labels).tolist()[0] == pytest.approx([1, loss[0], 1], rel=1e-4)
    assert token_metrics([[1, 2 * math.log(8), 2], [1, 0, 0]]) == {
        "accuracy": 100.0,
        "perplexity": pytest.approx(8.0),
    }
    assert math.isfinite(token_metrics([[0, 1e9, 1]])["perplexity"])


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_is_hidden_for_scoring_is_always_the_same(bases: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(bases[kind])
    said = ["the film was good " * 9, "a cold one", "warm"]
    one = MASKED.scoring(tokenizer, texts(*said), 16).examples
    other = MASKED.scoring(tokenizer, texts(*reversed(said[:2])), 16).examples
    assert all(example in one for example in other)
    for example in one:
        pairs = list(zip(example["input_ids"], example["labels"], strict=True))
        hidden = [label for _, label in pairs if label != -100]
        words = [token for token, _ in pairs if token not in tokenizer.all_special_ids]
        assert len(hidden) == max(1, round(0.15 * (len(words) + len(hidden))))
        assert {token for token, label in pairs if label != -100} == {tokenizer.mask_token_id}


def test_other_tokens_are_hidden_every_time_in_training(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["roberta"])
    encoded = MASKED.encode(tokenizer, texts("the film was good " * 40, "warm"), 32)
    assert max(len(example["input_ids"]) for example in encoded) == 32
    model = model_of(MASKED, bases["roberta"])
    collator = MASKED.collator(tokenizer, model)
    torch.manual_seed(0)
    first, second = (collator(list(encoded)) for _ in range(2))
    assert not torch.equal(first["labels"], second["labels"])
    shares = [float((batch["labels"] != -100).float().mean()) for batch in (first, second)]
    assert all(0.05 < share < 0.3 for share in shares)
    # One short text, whatever is drawn.
    for _ in range(20):
        alone = collator([encoded[-1]])
        assert (alone["labels"] != -100).sum() == 1
        assert model(**alone).loss.isfinite()


def test_perplexity_of_what_is_hidden(bases: dict[str, Path]) -> None:
    base, split = bases["bert"], texts("the film was good " * 9, "a cold one", "warm")
    model = model_of(MASKED, base)
    losses = []
    for example in MASKED.scoring(load_tokenizer(base), split, 16).examples:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])
        with torch.no_grad():
            likely = model(ids).logits[0].log_softmax(-1)
        losses += [-float(likely[i, label]) for i, label in enumerate(labels) if label != -100]
    for batch in (1, 64):
        scores = evaluated(MASKED, base, split, batch)
        assert scores["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_bases_that_cannot_fill_in(bases: dict[str, Path]) -> None:
    with pytest.raises(BadModel, match="no mask token") as caught:
        MASKED.encode(load_tokenizer(bases["gpt2"]), texts("the film"), 16)
    assert "--task" in str(caught.value.hint)
    with pytest.raises(BadData, match="no text .* that the base's tokenizer knows|No text"):
        MASKED.encode(load_tokenizer(bases["bert"]), texts("\u2603"), 16)


def test_ten_megabytes_of_text(bases: dict[str, Path]) -> None:
    text = "the film was good. " * 50_000
    blocks = CAUSAL.encode(load_tokenizer(bases["gpt2"]), texts(text), 64)
    assert sum(len(block["input_ids"]) - 1 for block in blocks) > 200_000
    stretches = MASKED.encode(load_tokenizer(bases["bert"]), texts(text), 64)
    assert sum(len(stretch["input_ids"]) - 2 for stretch in stretches) == 250_000


def toy(size: int, seed: int) -> Split:
    """Return texts of which one word is open and everything else always the same."""
    drawn = random.Random(seed)
    return texts(
        *(f"the film was not {drawn.choice(['good', 'warm'])} a cold is great" for _ in range(size))
    )


def learn(task: Task, base: Path, out: Path) -> FinetuneResult:
    dataset = TextDataset("films", task.name, (), toy(96, 0), toy(16, 1), toy(16, 2))
    settings = FinetuneSettings(
        epochs=10, lr=1e-2, batch_size=8, max_length=24, seed=1, early_stopping=False
    )
    return finetune(base, dataset, settings, out)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_learns_the_next_token(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    before = evaluated(CAUSAL, bases[kind], toy(16, 2), 8)
    result = learn(CAUSAL, bases[kind], tmp_path / "out")
    assert (result.task, result.metric) == (CAUSAL.name, "accuracy")
    # One word in ten is open.
    assert before["accuracy"] < 10 < 80 < result.test
    assert result.metrics["perplexity"] < 2 < 100 < before["perplexity"]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_learns_to_fill_in(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    before = evaluated(MASKED, bases[kind], toy(16, 2), 8)
    result = learn(MASKED, bases[kind], tmp_path / "out")
    assert (result.task, result.metric) == (MASKED.name, "accuracy")
    assert before["accuracy"] < 30 < 80 < result.test
    assert result.metrics["perplexity"] < 2 < before["perplexity"]
    # transformers' own class reads it.
    load_model("AutoModelForMaskedLM", tmp_path / "out")
