"""Whole evaluations of tiny models, beside what transformers and scikit-learn make of them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import matthews_corrcoef
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.errors import (
    BadModel,
    BadSuite,
    EvaluationFailed,
    InvalidRequest,
    TrainingFailed,
    UnknownName,
)
from coldfusion_shared.evaluate import features
from coldfusion_shared.evaluate.base_digest import base_digest
from coldfusion_shared.evaluate.features import Encoder
from coldfusion_shared.evaluate.linear import RIDGE_STRENGTHS, STRENGTHS
from coldfusion_shared.evaluate.protocols import Measured, protocol_named
from coldfusion_shared.evaluate.results import Evaluated
from coldfusion_shared.evaluate.runner import evaluate_base, pool_notes
from coldfusion_shared.evaluate.suite import LoadedSuite, read_suite
from coldfusion_shared.finetune import FinetuneSettings, training
from coldfusion_shared.finetune.checkpoints import Checkpoints, name_training
from tests.shared.evaluate.suites import films, ratings, write_split, write_suite
from tests.tiny_models import tiny_bert, tiny_model
from tests.toy_data import toy_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = (0, 1, 2)
# Enough to learn something, quickly.
QUICK = """
training: {epochs: 3, lr: 3e-3, batch_size: 8}
few_shot: 24
few_shot_training: {epochs: 3, lr: 3e-3, batch_size: 8}
"""


@pytest.fixture(scope="module", autouse=True)
def in_float32() -> Iterator[None]:
    """Whatever this machine is quicker with: the oracle computes with float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coldfusion_shared.evaluate.protocols.frozen.quick_precision", lambda: "fp32")
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    films(folder / "films")
    films(folder / "pairs", seed=1, pairs=True, train=150)
    ratings(folder / "ratings")
    return folder


@pytest.fixture(scope="module")
def suite(folder: Path) -> LoadedSuite:
    datasets = """
  - {data: films, seen: true}
  - {data: pairs, metric: Matthews, seen: false}
  - {data: ratings}
"""
    more = QUICK + "limits: {train: 90, validation: 20, test: 30}\n"
    return read_suite(write_suite(folder, datasets, more))


@pytest.fixture(scope="module")
def frozen(base: Path, suite: LoadedSuite, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return evaluate_base(base, suite, "frozen", SEEDS, tmp_path_factory.mktemp("kept"))


class Plain:
    """Probing by nothing but transformers and scikit-learn: text after text, in float32."""

    def __init__(self, folder: Path, max_length: int) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval()
        self.max_length = max_length

    def features(self, split: Split) -> Any:
        rows = []
        for text, pair in split.keys(["text", "text_pair"]):
            one = self.tokenizer(
                text, pair, truncation=True, max_length=self.max_length, return_tensors="pt"
            )
            with torch.no_grad():
                rows.append(self.model(**one).last_hidden_state[0].mean(0).numpy())
        return np.stack(rows)

    def score(self, dataset: TextDataset, models: list[Any], metric: Any) -> float:
        scaler = StandardScaler().fit(self.features(dataset.train))
        train, validation, test = (
            (scaler.transform(self.features(split)), np.array(split["label"]))
            for split in dataset.splits.values()
        )
        fitted = [model.fit(*train) for model in models]
        best = max(fitted, key=lambda model: metric(validation[1], model.predict(validation[0])))
        return 100 * float(metric(test[1], best.predict(test[0])))


def accuracy(labels: Any, guesses: Any) -> float:
    return float((labels == guesses).mean())


def pearson(labels: Any, guesses: Any) -> float:
    return float(pearsonr(labels, guesses).statistic)


def test_scores_are_scikit_learns_own_on_features_by_plain_transformers(
    base: Path, suite: LoadedSuite, frozen: Evaluated
) -> None:
    plain = Plain(base, suite.suite.max_length)
    metrics = (accuracy, matthews_corrcoef, pearson)
    for data, result, metric in zip(suite.datasets, frozen.results, metrics, strict=True):
        for seed, score in zip(SEEDS, result.by_seed, strict=True):
            classifiers = [LogisticRegression(C=c, max_iter=2000) for c in STRENGTHS]
            regressors = [Ridge(alpha=1 / c) for c in RIDGE_STRENGTHS]
            models = regressors if metric is pearson else classifiers
            expected = plain.score(data.draw(seed), models, metric)
            assert score == pytest.approx(expected, abs=1e-3)


def test_in_bf16_they_are_nearly_the_same(
    base: Path, suite: LoadedSuite, frozen: Evaluated, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coldfusion_shared.evaluate.protocols.frozen.quick_precision", lambda: "bf16")
        found = evaluate_base(base, suite, "frozen", SEEDS, tmp_path)
    assert found != frozen
    for one, other in zip(found.results, frozen.results, strict=True):
        # One of thirty test examples is 3.3 points.
        assert one.score == pytest.approx(other.score, abs=5)


def test_what_an_evaluation_comes_to(suite: LoadedSuite, frozen: Evaluated) -> None:
    assert frozen.seeds == SEEDS and frozen.protocol == "frozen"
    assert [result.name for result in frozen.results] == ["films", "pairs", "ratings"]
    assert [result.seen for result in frozen.results] == [True, False, None]
    for data, result in zip(suite.datasets, frozen.results, strict=True):
        assert result.labels == data.dataset.test["label"]
        assert result.guesses is not None and [len(one) for one in result.guesses] == [30] * 3
        assert result.score == pytest.approx(sum(result.by_seed) / 3)
        assert result.standard_error is not None and 0 < result.standard_error < 30
        assert result.data_digest == data.entry.digest
    assert frozen.average == pytest.approx(sum(r.score for r in frozen.results) / 3)
    assert frozen.standard_error is not None
    # Far above chance, which is 33 percent.
    assert frozen.results[0].score > 50 and frozen.results[2].score > 50
    assert Evaluated.from_json(frozen.to_json()) == frozen


def test_what_is_reported(suite: LoadedSuite, frozen: Evaluated) -> None:
    report = frozen.report("coldfusion 1")
    assert (report.suite, report.suite_digest) == ("toys", suite.suite.digest())
    assert (report.protocol, report.software) == ("frozen", "coldfusion 1")
    assert report.metric == "accuracy, Matthews, Pearson"
    assert report.scores == {result.name: result.score for result in frozen.results}
    assert report.standard_errors.keys() == report.by_seed.keys() == report.scores.keys()
    assert tuple(report.seeds) == SEEDS


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"suite": 3}'])
def test_scores_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no scores of an evaluation"):
        Evaluated.from_json(text)


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of texts whenever features are computed."""
    asked: list[int] = []
    compute = Encoder.features

    def watched(encoder: Encoder, split: Split, *more: Any) -> Any:
        asked.append(len(split))
        return compute(encoder, split, *more)

    monkeypatch.setattr(Encoder, "features", watched)
    return asked


def test_only_what_changed_is_computed_again(
    base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = computed(monkeypatch)

    def run(datasets: str, seeds: tuple[int, ...] = (0, 1), max_length: int = 24) -> Evaluated:
        path = write_suite(folder, datasets)
        path.write_text(path.read_text().replace("24", f"{max_length}"))
        suite = read_suite(path)
        return evaluate_base(base, suite, "frozen", seeds, tmp_path)

    one = run("  - data: films\n")
    texts, asked[:] = sum(asked), []
    # Each text once, though both seeds read the 50 of validation and test, and share training ones.
    assert 60 < texts <= 110
    assert run("  - data: films\n") == one and asked == []
    # Another name is no other data.
    assert run("  - {data: films, name: cinema}\n").results[0].score == one.results[0].score
    assert asked == []
    # Another metric asks for other fits, and for no other features.
    run("  - {data: films, metric: Matthews}\n")
    assert asked == []
    # One more seed: only its own examples.
    more = run("  - data: films\n", (0, 1, 2))
    assert more.results[0].by_seed[:2] == one.results[0].by_seed
    assert sum(asked) + texts <= 110
    asked[:] = []
    both = run("  - data: films\n  - data: ratings\n", (0, 1, 2))
    assert both.results[0] == more.results[0]
    assert 0 < sum(asked) <= 110
    asked[:] = []
    run("  - data: films\n", (0, 1), max_length=12)
    assert sum(asked) == texts


def test_another_base_has_scores_of_its_own(
    base: Path, suite: LoadedSuite, frozen: Evaluated, tmp_path: Path
) -> None:
    other = tiny_bert(tmp_path / "other", seed=1)
    kept = tmp_path / "kept"
    evaluate_base(base, suite, "frozen", SEEDS, kept)
    found = evaluate_base(other, suite, "frozen", SEEDS, kept)
    assert [r.guesses for r in found.results] != [r.guesses for r in frozen.results]


def test_a_base_is_its_weights_its_config_and_its_tokenizer(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    digest = base_digest(base)
    assert base_digest(copy) == digest
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" ")
        assert base_digest(copy) != digest
        (copy / name).write_bytes(content)
    assert base_digest(copy) == digest


@pytest.mark.parametrize("damage", [b"", b"{}", b"flipped"])
def test_damaged_results_are_measured_again(
    base: Path, suite: LoadedSuite, frozen: Evaluated, tmp_path: Path, damage: bytes
) -> None:
    evaluate_base(base, suite, "frozen", SEEDS, tmp_path)
    for path in (tmp_path / "results").iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1", b"2") if damage == b"flipped" else damage)
    assert evaluate_base(base, suite, "frozen", SEEDS, tmp_path) == frozen


def test_progress_never_goes_back_and_ends_at_the_end(
    base: Path, suite: LoadedSuite, tmp_path: Path
) -> None:
    seen: list[tuple[float, int, str]] = []
    evaluate_base(base, suite, "frozen", SEEDS, tmp_path, lambda *told: seen.append(told))
    done = [one[0] for one in seen]
    assert done == sorted(done) and {one[1] for one in seen} == {9}
    assert seen[0][0] == 0 and seen[-1][0] == 9
    assert any(one % 1 for one in done)
    assert seen[0][2] == "films, seed 0"


KILLED = """
import os, signal, sys
from pathlib import Path
from coldfusion_shared.evaluate.runner import evaluate_base
from coldfusion_shared.evaluate.suite import read_suite

base, suite, protocol, kept, until = sys.argv[1:]

def progress(done, total, what):
    if done > float(until):
        os.kill(os.getpid(), signal.SIGKILL)

evaluate_base(Path(base), read_suite(Path(suite)), protocol, (0, 1), Path(kept), progress)
"""


@pytest.mark.parametrize(("protocol", "until"), [("frozen", 3.5), ("finetuned", 2.5)])
def test_a_run_that_was_killed_goes_on(
    base: Path,
    folder: Path,
    tmp_path: Path,
    protocol: str,
    until: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As the other process computes.
    frozen = "coldfusion_shared.evaluate.protocols.frozen.quick_precision"
    monkeypatch.setattr(frozen, features.quick_precision)
    write_suite(folder, "  - data: films\n  - data: ratings\n", QUICK)
    words = [str(base), str(folder / "suite.yaml"), protocol, str(tmp_path / "kept"), str(until)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], timeout=300)
    assert ended.returncode == -signal.SIGKILL
    suite = read_suite(folder / "suite.yaml")
    chosen = protocol_named(protocol)
    measured: list[str] = []

    class Counting:
        check, trained, settings = chosen.check, chosen.trained, chosen.settings

        def begin(self, *known: Any) -> Any:
            real = chosen.begin(*known)

            class Measurer:
                def measure(self, data: Any, seed: int, tick: Any) -> Measured:
                    measured.append(f"{data.entry.name} {seed}")
                    return real.measure(data, seed, tick)

            return Measurer()

    name = "coldfusion_shared.evaluate.runner.protocol_named"
    monkeypatch.setattr(name, lambda _: Counting())
    resumed = evaluate_base(base, suite, protocol, (0, 1), tmp_path / "kept")
    assert measured == ["films 0", "films 1", "ratings 0", "ratings 1"][int(until) :]
    assert resumed == evaluate_base(base, suite, protocol, (0, 1), tmp_path / "anew")


def test_an_interruption_is_not_swallowed(base: Path, suite: LoadedSuite, tmp_path: Path) -> None:
    def progress(done: float, total: int, what: str) -> None:
        # All of the fourth may be told before it is kept.
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_base(base, suite, "frozen", SEEDS, tmp_path, progress)
    assert len(list((tmp_path / "results").iterdir())) == 4


def trainings(folder: Path, more: str) -> list[Any]:
    """How the two protocols train, of a suite with these settings."""
    suite = read_suite(write_suite(folder, "  - data: films\n", more)).suite
    chosen: list[Any] = [protocol_named(name) for name in ("finetuned", "few-shot")]
    return [one.training(suite, 0) for one in chosen]


def test_each_protocol_that_trains_has_settings_of_its_own(folder: Path) -> None:
    finetuned, few = trainings(folder, "")
    assert (finetuned.epochs, finetuned.early_stopping) == (4, True)
    assert (few.epochs, few.early_stopping) == (20, False)
    changed, same = trainings(folder, "training: {epochs: 4, lr: 1e-3}\n")
    assert (changed.epochs, changed.lr, same) == (4, 1e-3, few)
    same, changed = trainings(folder, "few_shot_training: {epochs: 30}\n")
    assert (changed.epochs, same) == (30, finetuned)
    suite = read_suite(folder / "suite.yaml").suite
    assert suite.training == {"few_shot_epochs": 30}


def test_data_base_task_metric_and_tokenizer_name_a_training(base: Path, tmp_path: Path) -> None:
    def named(folder: Path = base, metric: str | None = None, **changed: Any) -> str:
        dataset = dataclasses.replace(toy_dataset(), **changed)
        return name_training(folder, dataset, FinetuneSettings(), metric)

    other = shutil.copytree(base, tmp_path / "other")
    tokenizer = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(tokenizer + " ")
    # The numbers of a classification can be those of a regression.
    names = {named(), named(other), named(metric="macro F1"), named(task="regression")}
    assert len(names) == 4
    assert named(shutil.copytree(base, tmp_path / "same")) == named(metric="accuracy") == named()


def test_a_training_that_was_killed_is_not_gone_on_with_by_another_metric(
    base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    class Watched(Checkpoints):
        def __init__(self, place: Path, name: str) -> None:
            begun.append(name)
            super().__init__(place, name)

    monkeypatch.setattr("coldfusion_shared.evaluate.finetuning.Checkpoints", Watched)
    for metric in ("accuracy", "macro F1"):
        suite = read_suite(write_suite(folder, f"  - {{data: films, metric: {metric}}}\n", QUICK))
        evaluate_base(base, suite, "finetuned", (0,), tmp_path / metric)
    assert len(set(begun)) == 2


def test_what_small_data_sets_cost_is_said(suite: LoadedSuite, frozen: Evaluated) -> None:
    # Ninety are wanted, of 60, 150 and 60.
    assert [(one.train, one.pool) for one in frozen.results] == [(60, 60), (90, 150), (60, 60)]
    assert [one.with_replacement for one in frozen.results] == [True] * 3
    told = pool_notes(suite, "frozen")
    assert [sentence.split(":")[0] for sentence in told] == ["films", "pairs", "ratings"]
    assert "150 training examples, from which each seed draws 90 with replacement" in told[1]
    assert "About 68 of them differ" in told[1]
    # Of few examples no data set has less than twice as many.
    assert pool_notes(suite, "few-shot") == []


def test_what_killed_runs_have_left_is_removed_by_the_next_one(
    base: Path, suite: LoadedSuite, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    old, fresh = results / ".a.json.x1.partial", results / ".b.json.x2.partial"
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (1000, 1000))
    evaluate_base(base, suite, "frozen", (0,), tmp_path)
    assert fresh.exists() and not old.exists()


def test_finetuned_and_few_shot_measure_what_was_learnt(
    base: Path, suite: LoadedSuite, frozen: Evaluated, tmp_path: Path
) -> None:
    finetuned = evaluate_base(base, suite, "finetuned", (0, 1), tmp_path)
    for data, result in zip(suite.datasets, finetuned.results, strict=True):
        assert result.labels == data.dataset.test["label"]
        assert result.guesses is not None and [len(one) for one in result.guesses] == [30] * 2
        assert result.standard_error is not None
    few = evaluate_base(base, suite, "few-shot", (0,), tmp_path)
    assert (few.protocol, few.seeds) == ("few-shot", (0,))
    # Other models, though of such a small one the scores may be the same.
    assert few.results[2].guesses is not None and finetuned.results[2].guesses is not None
    assert few.results[2].guesses[0] != finetuned.results[2].guesses[0]
    assert [(one.train, one.pool) for one in few.results] == [(24, 60), (24, 150), (24, 60)]
    assert not (tmp_path / "training").exists()


def test_guesses_of_a_finetuned_model_are_in_the_order_of_the_test_part(
    base: Path, tmp_path: Path
) -> None:
    films(tmp_path / "films", train=300)
    ratings(tmp_path / "ratings", train=120)
    more = "training: {epochs: 10, lr: 3e-3, batch_size: 8}\n"
    suite = read_suite(write_suite(tmp_path, "  - data: films\n  - data: ratings\n", more))
    found = evaluate_base(base, suite, "finetuned", (0,), tmp_path / "kept")
    # Learnt so well that guesses and labels in another order would hardly agree.
    assert found.results[0].score > 80 and found.results[1].score > 80


def test_a_task_that_is_not_scored_example_by_example_has_a_score_alone(
    folder: Path, tmp_path: Path
) -> None:
    rows = [
        {"tokens": ["the", "film", "was", word], "ner_tags": ["O", "O", "O", tag]}
        for word, tag in [("good", "B-P"), ("bad", "B-N")] * 10
    ]
    for split in ("train", "validation", "test"):
        write_split(folder / "tagged" / f"{split}.jsonl", rows)
    base = tiny_model(tmp_path / "base", "roberta")
    suite = read_suite(write_suite(folder, "  - data: tagged\n", QUICK))
    result = evaluate_base(base, suite, "finetuned", (0, 1), tmp_path / "kept").results[0]
    assert (result.metric, result.labels, result.guesses) == ("F1", None, None)
    assert len(result.by_seed) == 2 and result.standard_error is None
    with pytest.raises(BadSuite) as caught:
        evaluate_base(base, suite, "frozen", (0,), tmp_path / "kept")
    assert "'tagged'" in caught.value.message and "token-classification" in caught.value.message
    assert "classification and regression" in caught.value.message
    assert caught.value.hint and "finetuned" in caught.value.hint


def test_what_cannot_be_measured_is_refused_before_all_work(
    base: Path, suite: LoadedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = computed(monkeypatch)
    with pytest.raises(UnknownName, match="frost"):
        evaluate_base(base, suite, "frost", (0,), tmp_path)
    with pytest.raises(InvalidRequest, match="No seed"):
        evaluate_base(base, suite, "frozen", (), tmp_path)
    with pytest.raises(InvalidRequest, match="twice"):
        evaluate_base(base, suite, "frozen", (1, 1), tmp_path)
    for protocol in ("frozen", "finetuned"):
        with pytest.raises(BadModel):
            evaluate_base(tmp_path / "gone", suite, protocol, (0,), tmp_path)
    assert asked == [] and list(tmp_path.iterdir()) == []


def test_a_base_that_cannot_learn_a_task_is_told(folder: Path, tmp_path: Path) -> None:
    rows = [{"document": f"the film {i}", "summary": "good"} for i in range(20)]
    for split in ("train", "test"):
        write_split(folder / "summed" / f"{split}.jsonl", rows)
    suite = read_suite(write_suite(folder, "  - {data: summed, task: seq2seq}\n"))
    with pytest.raises(BadModel, match="'summed' is for the task seq2seq"):
        evaluate_base(tiny_bert(tmp_path / "base"), suite, "finetuned", (0,), tmp_path / "kept")


def broken(folder: Path, base: Path, value: float) -> Path:
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_whose_features_are_no_numbers(
    base: Path, suite: LoadedSuite, tmp_path: Path, value: float
) -> None:
    folder = broken(tmp_path / "broken", base, value)
    with pytest.raises(EvaluationFailed, match="not finite of texts of 'films'"):
        evaluate_base(folder, suite, "frozen", (0,), tmp_path / "kept")
    with pytest.raises(TrainingFailed):
        evaluate_base(folder, suite, "finetuned", (0,), tmp_path / "kept")
    assert not (tmp_path / "kept" / "training").exists()
    assert not list((tmp_path / "kept").glob("results/*"))


def test_a_score_that_is_no_number_is_never_kept(
    base: Path, suite: LoadedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    monkeypatch.setattr(
        "coldfusion_shared.evaluate.protocols.frozen._Probing.measure",
        lambda *_: Measured(nan, (0,) * 30),
    )
    with pytest.raises(EvaluationFailed, match="films, seed 0: the score is no finite number"):
        evaluate_base(base, suite, "frozen", (0,), tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_finetuned_model_whose_outputs_are_no_numbers(
    base: Path, suite: LoadedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training.Training.run

    def spoilt(self: Any, *arguments: Any) -> int:
        steps = run(self, *arguments)
        self.model.classifier.bias.data[0] = float("nan")
        return steps

    monkeypatch.setattr(training.Training, "run", spoilt)
    with pytest.raises(EvaluationFailed, match="no finite number"):
        evaluate_base(base, suite, "finetuned", (0,), tmp_path)


def test_too_little_memory_is_told(
    base: Path, suite: LoadedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Encoder, "_pooled", full)
    with pytest.raises(EvaluationFailed, match="more memory than there is"):
        evaluate_base(base, suite, "frozen", (0,), tmp_path)


def test_a_folder_that_takes_nothing_costs_nothing_but_what_is_kept(
    base: Path, suite: LoadedSuite, frozen: Evaluated, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("a file")
    told: list[str] = []
    found = evaluate_base(base, suite, "frozen", SEEDS, tmp_path / "kept", say=told.append)
    for one, other in zip(found.results, frozen.results, strict=True):
        assert one.by_seed == pytest.approx(other.by_seed, abs=1e-3)
    assert any("Scores cannot be kept" in sentence for sentence in told)
