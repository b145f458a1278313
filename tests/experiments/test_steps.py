"""Finetunings, soups, Multitask and lines, against straightforward oracles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.evaluate.drawing import drawn
from coldfusion_shared.evaluate.runner import evaluate_base
from coldfusion_shared.schemas.recipes import Recipe
from experiments.lab import Lab, Model
from experiments.notebook import Notebook, joined
from experiments.records import Records, read
from experiments.steps.baselines import (
    budgets,
    greedy_soup,
    learnt_together,
    one_shot,
    uniform_soup,
)
from experiments.steps.finetuning import best_rate, finetuned
from experiments.steps.fusing import Score, Update, by_method
from experiments.steps.lines import Way, dealt, line
from experiments.steps.multitask import Share, multitask
from experiments.steps.scoring import FROZEN, scored, suite_of, validation_score
from tests.experiments.conftest import Inputs
from tests.experiments.labs import lab_of

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = "model.safetensors"
NAMES = ["films", "rooms", "winters"]


@pytest.fixture(scope="module")
def lab(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return lab_of(inputs, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def updates(lab: Lab) -> list[Update]:
    return [
        Update(name, finetuned(lab, lab.pretrained, lab.data.part(name, 16, 0), 1e-3, seed))
        for seed, name in enumerate(NAMES)
    ]


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """Return the body of a model, under the base's names."""
    found = load_file(model.folder() / WEIGHTS)
    return {name.removeprefix("bert."): value for name, value in found.items()}


def mean_of(lab: Lab, models: list[Model]) -> dict[str, torch.Tensor]:
    """Return the plain average of bodies."""
    bodies = [tensors(model) for model in models]
    return {
        name: torch.stack([body.get(name, base).double() for body in bodies]).mean(0).float()
        for name, base in tensors(lab.pretrained).items()
    }


def check_equal(model: Model, wanted: dict[str, torch.Tensor]) -> None:
    found = tensors(model)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_the_uniform_soup_is_the_plain_average(lab: Lab, updates: list[Update]) -> None:
    check_equal(uniform_soup(lab, updates), mean_of(lab, [one.model for one in updates]))


def test_the_greedy_soup_is_what_trying_one_by_one_finds(lab: Lab, updates: list[Update]) -> None:
    # Any number that depends on the weights will do for a score.
    def measure(folder: Path) -> float:
        value = load_file(folder / WEIGHTS)["embeddings.word_embeddings.weight"].double()
        return float((value * torch.arange(value.numel()).reshape(value.shape).cos()).sum())

    base = "embeddings.word_embeddings.weight"
    cosines = torch.arange(tensors(lab.pretrained)[base].numel()).cos()

    def worth(models: list[Model]) -> float:
        value = mean_of(lab, models)[base].double()
        return float((value * cosines.reshape(value.shape)).sum())

    ranked = sorted((one.model for one in updates), key=lambda model: -worth([model]))
    soup = ranked[:1]
    for model in ranked[1:]:
        if worth([*soup, model]) > worth(soup):
            soup.append(model)
    check_equal(greedy_soup(lab, updates, Score("of the test", measure)), mean_of(lab, soup))


def test_a_finetuning_is_made_once_and_depends_on_all_that_it_was_given(
    lab: Lab, updates: list[Update]
) -> None:
    part = lab.data.part(NAMES[0], 16, 0)
    before = len(lab.clock.seconds), lab.clock.done["finetune"]
    assert finetuned(lab, lab.pretrained, part, 1e-3, 0) == updates[0].model
    assert (len(lab.clock.seconds), lab.clock.done["finetune"]) == before
    others = [
        finetuned(lab, lab.pretrained, part, 1e-3, 9),
        finetuned(lab, lab.pretrained, part, 2e-3, 0),
        finetuned(lab, lab.pretrained, lab.data.part(NAMES[0], 16, 0, 1), 1e-3, 0),
        finetuned(lab, updates[1].model, part, 1e-3, 0),
    ]
    assert len({one.digest for one in [updates[0].model, *others]}) == 5


def test_the_rate_that_validates_best_is_chosen(lab: Lab) -> None:
    part = lab.data.part(NAMES[0], 48, 0, scored=12)
    rates = (1e-6, 3e-2)
    scores = [
        finetuned(lab, lab.pretrained, part, rate, 0, epochs=8.0).facts["validation"]
        for rate in rates
    ]
    assert scores[0] != scores[1]
    found = best_rate(
        lab,
        rates,
        "arm",
        lambda rate: [finetuned(lab, lab.pretrained, part, rate, 0, epochs=8.0)],
    )
    assert found == rates[scores.index(max(scores))]


def validated(score: float) -> list[Model]:
    return [Model("", Path, facts={"validation": score})]


@pytest.mark.parametrize(
    ("best", "said"),
    [(1e-4, ", the lowest of those tried"), (3e-4, ")"), (1e-3, ", the highest of those tried")],
)
def test_a_rate_at_the_end_of_those_tried_is_told_of(
    lab: Lab, tmp_path: Path, best: float, said: str
) -> None:
    records = Records(tmp_path / "records.jsonl")
    records.begin()
    noting = replace(lab, notebook=Notebook("main", records))
    rates = (1e-4, 3e-4, 1e-3)
    assert best_rate(noting, rates, "arm", lambda rate: validated(float(rate == best))) == best
    (choice,) = read(records.path)
    assert str(choice.note).endswith(said)


def test_multitask_learns_all_data_sets_with_one_body(lab: Lab) -> None:
    parts = [lab.data.part(name, 48, 0, scored=12) for name in NAMES[:2]]
    shares = [Share(part, 60) for part in parts]
    untrained = multitask(lab, lab.pretrained, shares, 1e-12, 3)
    found = multitask(lab, lab.pretrained, shares, 5e-3, 3)
    assert found.facts["steps"] == 120
    assert found.facts["validation"] > max(80.0, untrained.facts["validation"])
    assert tensors(found).keys() >= tensors(lab.pretrained).keys() - {
        name for name in tensors(lab.pretrained) if name.startswith("pooler")
    }


def test_multitask_that_diverges_says_so(lab: Lab) -> None:
    part = lab.data.part(NAMES[0], 16, 0)
    with pytest.raises(TrainingFailed, match="diverged"):
        multitask(lab, lab.pretrained, [Share(part, 60)], 1e30, 0)


def test_baselines_have_a_lines_budget(lab: Lab) -> None:
    settings = lab.settings
    seats = dealt(NAMES, settings.rounds, settings.contributors, 0)
    turns = Counter(seat.dataset for row in seats for seat in row)
    found = budgets(lab, NAMES, 0)
    each = min(settings.examples, 48)
    assert sum(one.steps for one in found) == sum(turns.values()) * -(-each // 8)
    assert sum(one.epochs * len(one.part.train) for one in found) == sum(turns.values()) * each
    assert len(one_shot(lab, NAMES, 0)) == len(found)


def test_data_sets_are_dealt_evenly_and_every_part_is_new() -> None:
    rows = dealt(NAMES, 6, 2, 4)
    assert Counter(seat.dataset for row in rows for seat in row) == dict.fromkeys(NAMES, 4)
    places = [(seat.dataset, seat.turn) for row in rows for seat in row]
    assert len(set(places)) == 12
    assert dealt(NAMES, 6, 2, 5) != rows


def test_parts_have_no_example_twice_until_all_were_had(lab: Lab) -> None:
    parts = [lab.data.part(NAMES[0], 16, 0, turn).train["text"] for turn in range(4)]
    assert len({text for part in parts[:3] for text in part}) == 48
    assert parts[3] == parts[0]


def test_a_contribution_that_comes_to_nothing_is_left_out_and_noted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lame(lab: Lab, base: Model, part: TextDataset, lr: float, seed: int) -> Model:
        if part.name == NAMES[0]:
            raise TrainingFailed("The training diverged.")
        return finetuned(lab, base, part, lr, seed)

    monkeypatch.setattr("experiments.steps.lines.finetuned", lame)
    way = Way("lame", NAMES, 1e-3, Recipe(), rounds=1, contributors=3)
    [(number, base)] = line(lab, way, 0)
    assert number == 1 and len(base.facts["contributions"]) == 2
    [failure] = [one for one in read(lab.notebook.records.path) if one.kind == "failure"]
    assert (failure.arm, failure.iteration, failure.seed) == ("lame", 1, 0)
    assert failure.note == "films: The training diverged."


def test_seeds_side_by_side_are_what_one_evaluation_of_all_seeds_finds(
    lab: Lab, tmp_path: Path
) -> None:
    loaded = suite_of(lab, NAMES, NAMES[:1])
    parts = [scored(lab, lab.pretrained, loaded, FROZEN, seed) for seed in (0, 1)]
    found = joined([part[0] for part in parts if part])
    together = evaluate_base(lab.pretrained.folder(), loaded, FROZEN, [0, 1], tmp_path)
    assert found == together


def test_contributors_and_scores_draw_their_examples_apart(lab: Lab) -> None:
    """With one order for both, a probe would learn from just what its contributor has learnt."""
    same = 0
    for seed in range(8):
        part = set(lab.data.part(NAMES[0], 12, seed).train["text"])
        same += len(part & set(drawn(lab.data.dataset(NAMES[0]).train, 12, seed)["text"]))
    # A quarter of 12, eight times, if they are independent; all of them, if not.
    assert 8 < same < 48


def test_what_chooses_looks_at_other_examples_than_what_judges(
    inputs: Inputs, tmp_path: Path
) -> None:
    exploring = lab_of(inputs, tmp_path, measuring={"split": "validation"})
    judged, chosen = (suite_of(exploring, NAMES, chooses=chooses) for chooses in (False, True))
    for ours, theirs in zip(judged.datasets, chosen.datasets, strict=True):
        whole = exploring.data.dataset(ours.entry.name)
        test, other = set(ours.dataset.test["text"]), set(theirs.dataset.test["text"])
        assert test and other and not test & other
        assert test | other <= set(whole.validation["text"])
        # What judges is what the other one chooses a probe's strength by, and the other way.
        assert set(ours.dataset.validation["text"]) == other
        # Nor do rates, and what is left out, go by what judges.
        part = exploring.data.part(ours.entry.name, 16, 3, scored=500)
        assert set(part.validation["text"]) == set(whole.validation["text"]) - test
    usual = suite_of(lab_of(inputs, tmp_path), NAMES)
    assert all(
        set(one.dataset.test["text"]) <= set(exploring.data.dataset(one.entry.name).test["text"])
        for one in usual.datasets
    )


def test_a_soup_chooses_by_as_many_data_sets_as_it_may(
    lab: Lab, inputs: Inputs, tmp_path: Path
) -> None:
    few = lab_of(inputs, tmp_path, tuning={"score_datasets": 1})
    assert validation_score(lab, NAMES).cost == pytest.approx(
        len(NAMES) * validation_score(few, NAMES).cost, rel=0.2
    )


def test_the_chosen_multitask_run_is_not_made_twice(inputs: Inputs, tmp_path: Path) -> None:
    lab = lab_of(inputs, tmp_path)
    found = learnt_together(lab, NAMES, 0)
    made = lab.cache.folder / "multitask"
    assert len(list(made.glob("*/*"))) == len(lab.settings.learning.lr)
    assert found.facts["steps"] == sum(one.steps for one in budgets(lab, NAMES, 0))


def test_methods_are_compared_at_one_rate() -> None:
    recipe = Recipe(method="ties", parameters={"density": 0.1}, server_lr="auto", pull=0.1)
    assert by_method(recipe, "median") == Recipe(method="median", server_lr=1.0, pull=0.1)
    assert by_method(Recipe(server_lr=2.0), "median").server_lr == 2.0
