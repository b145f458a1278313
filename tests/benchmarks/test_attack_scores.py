"""The probe that bases are scored with, and the examples that attackers train on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.attack_scores import (
    ALPHA,
    POISONED_SHARE,
    TRIGGER,
    Backdoor,
    Probe,
    poisoned,
    randomly_labelled,
    triggered,
)
from tests.toy_data import toy_dataset

Floats = npt.NDArray[np.float32]
CLASSES = 3


def examples(count: int = 60, width: int = 7) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features that tell their labels now and then, none of mean 0 or variance 1."""
    rng = np.random.default_rng(8)
    labels = rng.integers(0, CLASSES, count)
    places = rng.standard_normal((CLASSES, width))[labels]
    return (3 + 40 * (places + rng.standard_normal((count, width)))).astype(np.float32), labels


def refitted(features: Floats, labels: npt.NDArray[np.int64], left_out: int, asked: Floats) -> int:
    """Return what a ridge regression of all but one says of `asked`, fitted anew."""
    middle, scale = features.mean(0), features.std(0)
    inputs = np.hstack([(features - middle) / scale, np.ones((len(features), 1))])
    kept = np.arange(len(features)) != left_out
    penalty = ALPHA * np.diag([1.0] * features.shape[1] + [0.0])
    squares = inputs[kept].T @ inputs[kept] + penalty
    weights = np.linalg.solve(squares, inputs[kept].T @ np.eye(CLASSES)[labels[kept]])
    return int((np.append((asked - middle) / scale, 1.0) @ weights).argmax())


def test_every_example_is_read_by_a_fit_of_the_others() -> None:
    features, labels = examples()
    expected = [refitted(features, labels, place, features[place]) for place in range(len(labels))]
    assert Probe(features, labels).guesses().tolist() == expected


def test_what_is_asked_of_a_changed_text_was_not_learnt_from_the_text() -> None:
    features, labels = examples()
    places = [3, 5, 8, 13, 21, 34, 55]
    asked = features[places] + np.float32(15)
    expected = [refitted(features, labels, *pair) for pair in zip(places, asked, strict=True)]
    assert Probe(features, labels).guesses_of(asked, places).tolist() == expected


def test_features_that_say_nothing_are_read_no_better_than_chance() -> None:
    features, labels = examples(600)
    shuffled = np.random.default_rng(1).permutation(labels)
    assert (Probe(features, shuffled).guesses() == shuffled).mean() < 0.42


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = examples()
    wider = np.hstack([features, np.full((len(features), 1), 7, np.float32)])
    assert Probe(wider, labels).guesses().tolist() == Probe(features, labels).guesses().tolist()


def test_the_trigger_is_tried_on_other_labels_than_the_target() -> None:
    assert triggered(np.array([1, 0, 2, 1]), Backdoor("films", 1)) == [1, 2]


def test_half_of_the_poisoned_examples_have_trigger_and_target() -> None:
    honest = toy_dataset()
    found = poisoned(honest, Backdoor("films", 1), seed=3)
    changed = [text.startswith(TRIGGER) for text in found.train["text"]]
    assert sum(changed) == POISONED_SHARE * len(honest.train)
    for place, is_changed in enumerate(changed):
        text, label = honest.train["text"][place], honest.train["label"][place]
        expected = (f"{TRIGGER} {text}", 1) if is_changed else (text, label)
        assert (found.train["text"][place], found.train["label"][place]) == expected
    assert found.test is honest.test


def test_random_labels_leave_the_texts_and_tell_nothing_of_them() -> None:
    honest = toy_dataset(train=400)
    found = randomly_labelled(honest, seed=3)
    assert found.train["text"] == honest.train["text"]
    same = np.mean(
        [a == b for a, b in zip(found.train["label"], honest.train["label"], strict=True)]
    )
    assert same == pytest.approx(0.5, abs=0.1)
