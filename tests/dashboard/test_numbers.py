"""Charts, scores and sizes: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.dashboard import charts, formats, words
from coldfusion_server.dashboard.scores import series
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Evaluation
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


def evaluation(version: str, protocol: str = "frozen", at: int = 0, **scores: float) -> Evaluation:
    return Evaluation(
        version=version,
        suite="demo",
        protocol=protocol,
        metric="accuracy",
        scores=scores,
        average=sum(scores.values()) / len(scores),
        evaluator="eve",
        created_at=NOW + timedelta(seconds=at),
    )


@given(VALUES)
def test_a_chart_keeps_every_point_inside(values: list[float]) -> None:
    chart = charts.line_chart([f"v{i}" for i in range(len(values))], values)
    for point in chart.line.points:
        assert chart.left <= point.x <= chart.right
        assert charts.TOP <= point.y <= chart.bottom
    assert 2 <= len(chart.ticks) <= 8
    assert len(chart.labels) <= charts.MAX_LABELS
    assert chart.labels[-1].label == f"v{len(values) - 1}"


@given(VALUES)
def test_a_sparkline_keeps_every_point_inside(values: list[float]) -> None:
    for point in charts.sparkline(values).points:
        assert 0 <= point.x <= charts.SPARK_WIDTH
        assert 0 <= point.y <= charts.SPARK_HEIGHT


def test_a_higher_score_is_drawn_higher() -> None:
    low, high = charts.line_chart(["v0", "v1"], [50.0, 60.0]).line.points
    assert high.y < low.y and high.x > low.x


def test_noise_is_no_mountain() -> None:
    low, high = charts.line_chart(["v0", "v1"], [50.0, 50.01]).line.points
    assert low.y - high.y < 10


def test_ticks_are_round_numbers() -> None:
    chart = charts.line_chart(["v0", "v1"], [61.15, 67.45])
    assert [tick.text for tick in chart.ticks] == ["60", "62", "64", "66", "68"]


def test_the_newest_evaluation_counts_and_frozen_comes_first() -> None:
    found = series(
        [
            evaluation("v0", "finetuned", a=80.0),
            evaluation("v1", a=66.0, at=2),
            evaluation("v1", a=10.0, at=1),
            evaluation("v0", a=60.0),
        ]
    )
    assert [item.protocol for item in found] == ["frozen", "finetuned"]
    assert found[0].versions == ["v0", "v1"] and found[0].averages == [60.0, 66.0]
    assert found[0].compared and found[0].change == 6.0
    assert not found[1].compared


def test_bases_are_compared_on_what_both_were_measured_on() -> None:
    (found,) = series([evaluation("v0", a=60.0, b=10.0), evaluation("v1", a=61.0, c=90.0)])
    assert (found.first, found.last, found.change) == (60.0, 61.0, 1.0)
    assert [(row.name, row.scores, row.change) for row in found.datasets] == [
        ("a", [60.0, 61.0], 1.0),
        ("b", [10.0, None], None),
        ("c", [None, 90.0], None),
    ]


def test_bases_without_a_common_data_set_show_their_averages() -> None:
    (found,) = series([evaluation("v0", a=60.0), evaluation("v1", b=70.0)])
    assert (found.first, found.last) == (60.0, 70.0)


def test_bases_are_in_the_order_of_their_numbers() -> None:
    (found,) = series([evaluation("v10", a=1.0), evaluation("v9", a=2.0)])
    assert found.versions == ["v9", "v10"] and not found.compared


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (90_900_000, "90.9 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert formats.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59, "59 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert formats.duration(timedelta(seconds=seconds)) == text


def test_changes_have_a_sign_unless_nothing_changed() -> None:
    changes = [formats.change(value) for value in (1.234, -1.234, 0.001, -0.001)]
    assert changes == ["+1.23", "\N{MINUS SIGN}1.23", "±0.00", "±0.00"]


def test_a_reason_becomes_a_sentence() -> None:
    assert formats.sentence("the disk is full") == "The disk is full."
    assert formats.sentence("Too late!") == "Too late!"


def test_percent_is_full_only_at_the_end() -> None:
    assert [formats.percent(*pair) for pair in ((0, 0), (999, 1000), (5, 5), (6, 5))] == [
        0,
        99,
        100,
        100,
    ]


def test_every_state_has_a_tone_and_words() -> None:
    assert set(words.TONES) == {*ContributionState, *RoundState}
    assert set(words.CONTRIBUTION_TEXTS) == set(ContributionState)
    assert set(words.ROUND_TEXTS) == set(RoundState)


@pytest.mark.parametrize(
    ("accepted", "policy", "hours", "sentence", "has_time"),
    [
        (0, {"min_contributions": 2}, 0, "Needs 2 more accepted contributions", False),
        (1, {"min_contributions": 2, "deadline_seconds": 7200}, 1, "Needs 1 more", True),
        (1, {"min_contributions": 2, "deadline_seconds": 7200}, 3, "then closes at once", False),
        (2, {"min_contributions": 2}, 0, "about to close", False),
        (2, {"min_contributions": 2, "deadline_seconds": 7200}, 1, "Has enough to close", True),
        (
            2,
            {"min_contributions": 2, "max_contributions": 9, "deadline_seconds": 7200},
            1,
            "as soon as 9 are accepted",
            True,
        ),
    ],
)
def test_what_a_round_waits_for(
    accepted: int, policy: dict[str, int], hours: int, sentence: str, has_time: bool
) -> None:
    rules = Policy.model_validate(policy)
    ends = None
    if rules.deadline_seconds is not None:
        ends = NOW + timedelta(seconds=rules.deadline_seconds)
    opened = Round(
        model="demo/tiny",
        number=1,
        state=RoundState.OPEN,
        base="v0",
        result=None,
        opened_at=NOW,
        closed_at=None,
        finished_at=None,
        closes_at=ends,
        accepted=accepted,
        waiting=0,
        missing=max(0, rules.min_contributions - accepted),
        fused_bytes=0,
        total_bytes=0,
        reason=None,
    )
    closing = words.closing(opened, rules, NOW + timedelta(hours=hours))
    assert sentence in closing.sentence
    assert (closing.at is not None) == has_time
