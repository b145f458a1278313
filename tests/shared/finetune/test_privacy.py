"""DP-SGD: what one example adds is bounded, noise is added, and what is spent is counted."""

from __future__ import annotations

import copy
import math
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.optimizers import DPOptimizer
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy.stats import norm
from torch import nn

from coldfusion_shared.data import Split
from coldfusion_shared.errors import BadData, InvalidRequest
from coldfusion_shared.finetune import FinetuneResult, FinetuneSettings, checkpoints, finetune
from coldfusion_shared.finetune.clipping import ROW, ClippedSum, length
from coldfusion_shared.finetune.noise import SecretNoise
from coldfusion_shared.finetune.poisson import PoissonSteps
from coldfusion_shared.finetune.privacy import (
    ORDERS,
    Privacy,
    enough_noise,
    epsilon,
    in_words,
    plan_privacy,
    require_private,
)
from coldfusion_shared.finetune.rows import encode_rows
from coldfusion_shared.finetune.training import Training
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.tiny_models import tiny_bert, tiny_model
from tests.toy_data import toy_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

PRIVATE = FinetuneSettings(dp=True, epochs=2, batch_size=8, max_length=24, seed=1, dp_epsilon=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"dp_epsilon": 3}, "without dp"),
        ({"dp_clip": 1}, "without dp"),
        ({"dp": True, "dp_epsilon": 3, "dp_noise": 1}, "not both"),
        ({"dp": True, "gradient_accumulation": 2}, "larger batch_size"),
        ({"dp": True, "early_stopping": True}, "validation examples"),
        ({"dp": True, "group_by_length": True}, "at random"),
        ({"dp": True, "precision": "fp16"}, "fp32"),
        ({"dp": True, "dp_delta": 1}, "less than 1"),
        ({"dp": True, "dp_epsilon": 0}, "greater than 0"),
        ({"dp": True, "dp_noise": math.inf}, "finite"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FinetuneSettings(**given)


def test_only_with_dp_is_nothing_chosen_by_examples() -> None:
    private, usual = FinetuneSettings(dp=True), FinetuneSettings()
    assert not (private.early_stopping or private.group_by_length)
    assert usual.early_stopping and usual.group_by_length
    assert private.as_used()["dp_epsilon"] == 8.0
    assert FinetuneSettings(dp=True, dp_noise=2).as_used()["dp_epsilon"] is None


@pytest.mark.parametrize("sigma", [0.7, 1.0, 4.0])
def test_epsilon_of_one_step_bounds_what_is_known_exactly(sigma: float) -> None:
    found = epsilon([(sigma, 1.0, 1)], 1e-5)
    # The Gaussian mechanism's exact delta at that epsilon (Balle and Wang, 2018).
    half, shift = 1 / (2 * sigma), found * sigma
    exact = norm.cdf(half - shift) - math.exp(found) * norm.cdf(-half - shift)
    assert 1e-7 < exact <= 1e-5


def test_epsilon_is_opacus_own_and_little_above_what_is_tight() -> None:
    own, tight = RDPAccountant(), PRVAccountant()
    for _ in range(5):
        own.step(noise_multiplier=1.0, sample_rate=0.02)
    assert epsilon([(1.0, 0.02, 5)], 1e-4) == pytest.approx(own.get_epsilon(1e-4), rel=0.02)
    tight.history = [(1.0, 0.02, 200)]
    ratio = epsilon([(1.0, 0.02, 200)], 1e-4) / tight.get_epsilon(1e-4)
    assert 0.99 < ratio < 1.3


@given(
    st.lists(
        st.tuples(st.floats(0.5, 8), st.floats(0.001, 1), st.integers(1, 500)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([1e-2, 1e-5]),
)
@settings(max_examples=5, deadline=None)
def test_steps_of_all_kinds_add_up_as_opacus_adds_them(taken: list[Any], delta: float) -> None:
    own = RDPAccountant()
    for noise, rate, steps in taken:
        for _ in range(min(steps, 20)):
            own.step(noise_multiplier=noise, sample_rate=rate)
    short = [(noise, rate, min(steps, 20)) for noise, rate, steps in taken]
    with warnings.catch_warnings():
        # That other orders might be tighter.
        warnings.simplefilter("ignore")
        expected = own.get_epsilon(delta, alphas=ORDERS)
    assert epsilon(short, delta) == pytest.approx(max(0.0, expected))
    assert epsilon(taken, delta) >= epsilon(short, delta) * (1 - 1e-9)


@pytest.mark.parametrize("chosen", [0.1, 0.5])
def test_a_delta_that_tells_an_example_outright_is_refused(chosen: float) -> None:
    with pytest.raises(InvalidRequest, match="one of the 10 examples could be told outright"):
        plan_privacy(FinetuneSettings(dp=True, dp_delta=chosen), 10)


def test_an_epsilon_is_never_below_zero() -> None:
    assert epsilon([(5.0, 1 / 16, 1)], 1e-2) == 0.0


@pytest.mark.parametrize("wanted", [0.5, 8.0])
def test_the_noise_is_as_much_as_the_epsilon_asks_for(wanted: float) -> None:
    noise = enough_noise(wanted, 1e-3, 0.1, 40)
    assert 0.99 * wanted <= epsilon([(noise, 0.1, 40)], 1e-3) <= wanted


def test_no_noise_is_enough_for_next_to_nothing() -> None:
    with pytest.raises(InvalidRequest, match="No noise suffices"):
        enough_noise(1e-9, 1e-9, 1.0, 10**6)


def test_steps_are_counted_by_what_they_spent(tmp_path: Path) -> None:
    privacy = plan_privacy(FinetuneSettings(dp=True, dp_noise=2, batch_size=10), 95)
    assert (privacy.epoch, privacy.steps, privacy.delta) == (10, 40, 0.1 / 95)
    assert privacy.spent.epsilon == 0
    for _ in range(3):
        privacy.count()
    privacy.save(tmp_path)
    # Another version might have chosen other noise.
    later = Privacy(1.0, 1.0, 0.1 / 95, 10 / 95, 10, 10, 40)
    later.resume(tmp_path)
    later.count()
    later.count()
    assert later.taken == [(2.0, 10 / 95, 3), (1.0, 10 / 95, 2)]
    assert later.spent.steps == 5
    assert later.spent.epsilon > epsilon([(2.0, 10 / 95, 5)], 0.1 / 95)


def test_an_epsilon_is_rounded_up() -> None:
    assert [in_words(value) for value in (2.001, 3.0, math.inf)] == ["2.01", "3.00", "infinite"]


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6, math.inf, math.nan])
def test_no_example_adds_more_than_the_clip(size: float) -> None:
    learning = parameters((40, 30), (7,))
    clipped = ClippedSum(learning, 0.5)
    # The second one has no part in this example.
    learning[0].grad = torch.randn(40, 30) * size
    before = learning[0].grad.clone()
    clipped.take()
    added = clipped.sums[0].to(torch.float64).norm()
    assert added <= 0.5
    if size == 1e-3:
        assert torch.equal(clipped.sums[0], before)
    elif math.isfinite(size):
        assert added > 0.4999
    else:
        assert added == 0
    assert learning[0].grad is None


@given(st.lists(st.integers(0, 3 * ROW), min_size=1, max_size=4), st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_the_length_is_that_of_all_tensors_together(sizes: list[int], size: float) -> None:
    torch.manual_seed(sum(sizes))
    tensors = [torch.randn(count) * size for count in sizes]
    exact = math.sqrt(sum(float(one.to(torch.float64).square().sum()) for one in tensors))
    assert length(tensors) == pytest.approx(exact, rel=1e-5)


def test_the_length_of_many_numbers_is_not_too_short() -> None:
    # Embeddings have as many; added up in float32 one by one, a hundredth is lost.
    many = torch.full((3000, 4000), 0.1)
    assert length([many]) == pytest.approx(float(many[0, 0]) * math.sqrt(many.numel()), rel=1e-5)


@given(st.integers(1, 6), st.floats(0.01, 10), st.floats(0, 5), st.sampled_from([1e-4, 1.0, 1e4]))
@settings(max_examples=40, deadline=None)
def test_each_example_is_clipped_over_all_parameters_together(
    examples: int, clip: float, spread: float, size: float
) -> None:
    torch.manual_seed(examples)
    learning = parameters((5, 7), (3,), (2, 2, 2))
    clipped = ClippedSum(learning, clip)
    expected = [np.zeros(one.shape) for one in learning]
    for number in range(examples):
        # One tensor is far longer than the others: layers clipped apart would add up otherwise.
        grads = [torch.randn(one.shape) * size * math.exp(spread * i)
                 for i, one in enumerate(learning)]  # fmt: skip
        for one, grad in zip(learning, grads, strict=True):
            one.grad = grad.clone()
        clipped.take()
        exact = [grad.numpy().astype(np.float64) for grad in grads]
        norm = math.sqrt(sum(float(np.square(grad).sum()) for grad in exact))
        for array, numbers in zip(expected, exact, strict=True):
            array += numbers * min(1.0, clip / norm)
        assert all(one.grad is None for one in learning), number
    for array, summed in zip(expected, clipped.sums, strict=True):
        assert np.allclose(summed.numpy(), array, rtol=2e-3, atol=2e-4 * clip * examples)


# Opacus' hooks hear of a first layer, whose inputs need no gradient.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_the_sum_is_the_one_of_opacus() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs, labels = torch.randn(12, 6), torch.arange(12) % 3
    wrapped = GradSampleModule(copy.deepcopy(plain))
    optimizer = DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0),
        noise_multiplier=0.0, max_grad_norm=0.6, expected_batch_size=10,
    )  # fmt: skip
    loss: Any = nn.functional.cross_entropy(wrapped(inputs), labels)
    loss.backward()
    optimizer.pre_step()

    clipped = ClippedSum(plain.parameters(), 0.6)
    for one, label in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(plain(one[None]), label[None])
        loss.backward()
        clipped.take()
    clipped.release(0.0, 10, SecretNoise())
    for ours, theirs in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)


def test_the_noise_is_of_the_size_that_is_counted() -> None:
    (learning,) = parameters((300, 400))
    clipped = ClippedSum([learning], 0.5)
    clipped.release(3.0, 10, SecretNoise())
    assert learning.grad is not None
    assert float(learning.grad.std()) == pytest.approx(3.0 * 0.5 / 10, rel=0.02)


def test_noise_is_normal_and_of_no_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        drawn.append(SecretNoise().like(torch.empty(500, 401)).flatten())
    one, other = (part.numpy() for part in drawn)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    assert abs(one.mean()) < 0.02 and abs(one.std() - 1) < 0.02
    for bound in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0):
        assert np.mean(one < bound) == pytest.approx(norm.cdf(bound), abs=0.006)
    # Of odd numbers, too, and nothing twice in one stream.
    assert SecretNoise().like(torch.empty(3)).shape == (3,)
    assert len(np.unique(one)) > 0.9 * len(one)


def test_every_example_is_drawn_with_the_same_chance() -> None:
    steps = PoissonSteps(50, 0.1, 4000)
    counts = np.zeros(50)
    sizes = []
    for step in steps:
        counts[step] += 1
        sizes.append(len(step))
    assert len(sizes) == len(steps) == 4000
    # Six standard deviations.
    assert np.abs(counts / 4000 - 0.1).max() < 6 * math.sqrt(0.09 / 4000)
    assert np.var(sizes) == pytest.approx(50 * 0.09, rel=0.2)
    assert [len(step) for step in PoissonSteps(5, 1.0, 2)] == [5, 5]


def test_examples_are_not_drawn_by_the_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        drawn.append(list(PoissonSteps(100, 0.5, 3)))
    assert drawn[0] != drawn[1]


def started(base: Path, out: Path, **changed: Any) -> tuple[Training, Any]:
    """Return a training of the toy's examples, and its trainer, without noise."""
    settings = PRIVATE.model_copy(update=changed)
    training = Training(base, toy_dataset(), settings, task_named("classification"))
    trainer = training._trainer(str(out), training.dataset.validation, learns=True)
    trainer.privacy.noise = 0.0
    return training, trainer


def gradient_of(training: Training, trainer: Any, rows: list[Any]) -> torch.Tensor:
    """Return the sum that a step of these examples leaves."""
    trainer.training_step(training.model, rows)
    grads = [one.grad for one in training.model.parameters() if one.grad is not None]
    batch: float = trainer.privacy.batch
    return torch.cat([grad.flatten() for grad in grads]) * batch


def test_a_step_of_a_real_model_is_the_sum_of_clipped_gradients(base: Path, tmp_path: Path) -> None:
    training, trainer = started(base, tmp_path / "out", dp_clip=0.7)
    for module in training.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    rows = trainer.train_dataset[:6]
    found = gradient_of(training, trainer, rows)
    training.model.zero_grad()
    weights = dict(training.model.named_parameters())

    def loss(weights: dict[str, torch.Tensor], batch: Any) -> Any:
        return torch.func.functional_call(training.model, weights, kwargs=batch).loss

    expected, cut = torch.zeros_like(found), 0
    for pieces in rows:
        by_name: Any = torch.func.grad(loss)(weights, dict(trainer.data_collator(list(pieces))))
        one = torch.cat([by_name[name].flatten() for name in weights]).detach()
        cut += float(one.norm()) > 0.7
        expected += one * min(1.0, 0.7 / float(one.norm()))
    assert cut
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-3)


def test_no_example_shifts_the_dropout_of_those_after_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, trainer = started(base, tmp_path / "out")
    one, other = trainer.train_dataset[:2]
    fresh = [gradient_of(training, trainer, [one]) for _ in range(2)]
    # Drawn anew, whatever the seed; it matters, so there is dropout.
    assert not torch.allclose(fresh[0], fresh[1], atol=1e-4)
    monkeypatch.setattr("os.urandom", bytes)
    alone = [gradient_of(training, trainer, [row]) for row in (one, other)]
    together = gradient_of(training, trainer, [one, other])
    assert torch.allclose(together, alone[0] + alone[1], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "steps"), [({"epochs": 0.6, "batch_size": 10}, 5), ({"max_steps": 3}, 3)]
)
def test_what_is_drawn_planned_taken_and_counted_is_one(
    base: Path, tmp_path: Path, changed: dict[str, Any], steps: int
) -> None:
    training, trainer = started(base, tmp_path / "out", **changed)
    assert training.privacy is not None
    drawn = trainer.get_train_dataloader().batch_sampler
    assert (drawn.examples, drawn.chance) == (64, training.privacy.sample_rate)
    result = run(base, tmp_path, [], **changed)
    assert result.privacy is not None
    assert training.privacy.steps == result.steps == result.privacy.steps == steps
    assert 3.9 < result.privacy.epsilon <= 4


@pytest.mark.parametrize("kind", ["masked-language-modelling", "causal-language-modelling"])
def test_what_is_learnt_from_a_text_is_of_it_alone(tmp_path: Path, kind: str) -> None:
    base = tiny_model(tmp_path, "bert" if kind.startswith("masked") else "gpt2")
    tokenizer, task = load_tokenizer(base), task_named(kind)
    long = "the film was not good " * 20
    before = encode_rows(task, tokenizer, Split({"text": ("a film", long, "a bad film")}), 16)
    after = encode_rows(task, tokenizer, Split({"text": ("a film", "", "a bad film")}), 16)
    assert len(before[1]) > 5 and len(before) == len(after) == 3
    assert (before[0], before[2]) == (after[0], after[2])
    with pytest.raises(BadData):
        encode_rows(task, tokenizer, Split({"text": ("", "")}), 16)


@pytest.mark.parametrize("kind", ["bert", "t5", "gpt2"])
def test_no_example_moves_a_real_model_by_more_than_the_clip(tmp_path: Path, kind: str) -> None:
    dataset = toy_dataset()
    settings = PRIVATE.model_copy(update={"dp_clip": 0.05})
    training = Training(
        tiny_model(tmp_path / "base", kind), dataset, settings, task_named("classification")
    )
    trainer = training._trainer(str(tmp_path / "out"), dataset.validation, learns=True)
    trainer.privacy.noise = 0.0
    rows = trainer.train_dataset
    moved = []
    for step in ([rows[0]], [rows[1]], [rows[0], rows[1]], []):
        # Dropout draws from these.
        torch.manual_seed(0)
        trainer.training_step(training.model, step)
        grads = [one.grad for one in training.model.parameters() if one.grad is not None]
        moved.append(torch.cat([grad.flatten() for grad in grads]) * trainer.privacy.batch)
    assert [0.0499 < float(one.norm()) <= 0.05 for one in moved[:2]] == [True, True]
    assert float(moved[2].norm()) <= 0.1
    assert float(moved[3].norm()) == 0
    # A step that drew nothing is one, too.
    assert trainer.privacy.spent.steps == 4


def test_batch_normalisation_is_refused() -> None:
    require_private(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    with pytest.raises(InvalidRequest, match="means of what it has seen") as refused:
        require_private(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert refused.value.message.startswith("1 ")


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidRequest, match="one process"):
        plan_privacy(PRIVATE, 100)


def run(base: Path, folder: Path, said: list[str], **changed: Any) -> FinetuneResult:
    settings = PRIVATE.model_copy(update=changed)
    return finetune(base, toy_dataset(), settings, folder / "out", say=said.append)


def test_epsilon_is_told_and_kept_and_the_noise_differs_with_the_same_seed(
    base: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    result = run(base, tmp_path / "a", said)
    assert result.privacy is not None and result.steps == result.privacy.steps == 16
    assert 3.9 < result.privacy.epsilon <= 4
    assert (result.privacy.delta, result.privacy.sample_rate) == (0.1 / 64, 8 / 64)
    assert said[0].startswith("DP-SGD: 16 steps of 8 examples on average")
    assert [one.partition(" after ")[2] for one in said[1:]] == [
        "8 of 16 steps.", "16 of 16 steps."
    ]  # fmt: skip
    run(base, tmp_path / "b", [])
    one, other = (load_file(tmp_path / name / "out" / "model.safetensors") for name in "ab")
    assert not any(torch.equal(one[name], other[name]) for name in one if "query.weight" in name)


@pytest.mark.parametrize(
    "changed",
    [{"lora": True, "gradient_checkpointing": True}, {"freeze": ("embeddings",)}],
)
def test_what_does_not_learn_has_no_noise(
    base: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    result = run(base, tmp_path, [], max_steps=2, **changed)
    assert result.privacy is not None and result.privacy.steps == 2
    before, after = (
        load_file(base / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[f"bert.{name}"])
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[query], after[f"bert.{query}"])


def test_without_noise_it_learns_as_ever(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noiseless(settings: FinetuneSettings, examples: int) -> Privacy:
        return replace(plan_privacy(settings, examples), noise=0.0)

    monkeypatch.setattr("coldfusion_shared.finetune.training.plan_privacy", noiseless)
    # By chance alone a training may come to nothing, private or not.
    monkeypatch.setattr("os.urandom", random.Random(0).randbytes)
    said: list[str] = []
    result = run(base, tmp_path, said, epochs=15, lr=1e-3)
    assert min(result.validation, result.test) > 80
    assert result.privacy is not None and result.privacy.epsilon == math.inf
    assert "epsilon will be infinite" in said[0]


def test_a_killed_training_goes_on_counting(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    seen: list[int] = []

    def stop(done: int, total: int, loss: float) -> None:
        seen.append(done)
        if seen == list(range(1, 12)):
            raise KeyboardInterrupt

    def train() -> FinetuneResult:
        return finetune(
            base, toy_dataset(), PRIVATE, tmp_path / "out", stop, checkpoints=tmp_path / "kept"
        )

    with pytest.raises(KeyboardInterrupt):
        train()
    result = train()
    # What was thrown away is in no weight; all that is in them is counted.
    assert seen[11] > 8 and seen[-1] == 16
    assert result.privacy is not None and result.privacy.steps == 16
    assert 3.9 < result.privacy.epsilon <= 4
