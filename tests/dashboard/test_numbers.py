"""Charts, words and sizes: pure functions."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.dashboard import charts, formats, telling, words
from coldfusion_server.dashboard.values import Value
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.replays import ReplayState
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.closing import Waiting, missing
from coldfusion_shared.schemas.contributions import Contribution
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import Round
from coldfusion_shared.webhooks import DeliveryState
from tests.dashboard.measured import HOSTILE_NAMES

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SCORES = st.floats(-100, 100)
VALUES = st.builds(Value, SCORES, st.none() | st.floats(0, 200))
LINE = st.lists(VALUES, min_size=1, max_size=60)


def plain(*scores: float | None) -> list[Value | None]:
    return [None if score is None else Value(score) for score in scores]


def chart_of(*lines: list[Value | None]) -> charts.Chart:
    return charts.line_chart([f"v{i}" for i in range(len(lines[0]))], lines)


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


@given(LINE)
def test_a_chart_keeps_every_point_and_every_error_inside(values: list[Value]) -> None:
    chart = chart_of([*values])
    (line,) = chart.lines
    assert len(line.points) == len(values)
    for point in line.points:
        assert chart.left <= point.x <= chart.right
        assert charts.TOP <= point.high <= point.y <= point.low <= chart.bottom
    assert all(charts.TOP <= y <= chart.bottom for y in numbers(line.band)[1::2])
    assert 2 <= len(chart.ticks) <= 8
    assert len(chart.labels) <= charts.MAX_LABELS
    assert chart.labels[-1][1] == f"v{len(values) - 1}"


@pytest.mark.parametrize(("highest", "room"), [(80.0, 40.0), (0.004, 49.0)])
def test_long_labels_of_an_axis_have_room(highest: float, room: float) -> None:
    chart = charts.line_chart(["v0", "v1"], [plain(0.0, highest)], least=0.004)
    assert chart.left == room
    assert chart.lines[0].points[0].x == room + charts.INSET


@given(LINE)
def test_every_known_error_is_drawn_once(values: list[Value]) -> None:
    (line,) = chart_of([*values]).lines
    banded = len(numbers(line.band)) // 4
    assert banded + len(line.alone) == sum(value.error is not None for value in values)


@given(st.lists(SCORES, min_size=1, max_size=60))
def test_a_sparkline_keeps_every_point_inside(values: list[float]) -> None:
    for point in charts.sparkline([Value(value) for value in values]).points:
        assert 0 <= point.x <= charts.SPARK_WIDTH
        assert 0 <= point.y <= charts.SPARK_HEIGHT


def test_a_higher_score_is_drawn_higher() -> None:
    low, high = chart_of(plain(50.0, 60.0)).lines[0].points
    assert high.y < low.y and high.x > low.x


def test_noise_is_no_mountain() -> None:
    low, high = chart_of(plain(50.0, 50.01)).lines[0].points
    assert low.y - high.y < 10


def test_ticks_are_round_numbers() -> None:
    chart = chart_of(plain(61.15, 67.45))
    assert [tick.text for tick in chart.ticks] == ["60", "62", "64", "66", "68"]


def test_a_band_ends_where_no_error_is_known() -> None:
    errors = (1.0, 1.0, None, 1.0, None)
    (line,) = chart_of([Value(50.0, error) for error in errors]).lines
    assert line.band.count("M") == 1 and len(numbers(line.band)) == 8
    assert [point.label for point in line.alone] == ["v3"]
    assert chart_of(plain(1.0, 2.0)).lines[0].band == ""


def test_a_line_has_a_gap_where_nothing_was_measured() -> None:
    (line,) = chart_of(plain(50.0, 51.0, None, 52.0)).lines
    assert line.path.count("M") == 2 and [point.label for point in line.points][-1] == "v3"


def test_two_lines_share_their_axes() -> None:
    chart = chart_of(plain(70.0, 71.0), plain(40.0, None))
    (high, _), (low,) = (line.points for line in chart.lines)
    assert high.x == low.x and high.y < low.y


def test_points_that_would_hide_their_line_are_not_drawn_each() -> None:
    assert chart_of(plain(*range(100))).many and not chart_of(plain(*range(10))).many


@given(st.lists(VALUES, min_size=1, max_size=40))
def test_bars_start_at_zero_and_stay_inside_with_their_errors(values: list[Value]) -> None:
    chart = charts.bar_chart([f"data {i}" for i in range(len(values))], values)
    assert chart.left <= chart.zero <= chart.right
    for bar, value in zip(chart.bars, values, strict=True):
        assert chart.left <= bar.low <= bar.high <= chart.right
        assert bar.x == chart.zero or math.isclose(bar.x + bar.width, chart.zero, abs_tol=1)
        assert value.score == 0 or (bar.x >= chart.zero) == (value.score > 0) or bar.width == 1
        assert chart.top < bar.text < bar.y < bar.y + charts.BAR_HEIGHT < chart.bottom
    tops = [bar.y for bar in chart.bars]
    assert tops == sorted(set(tops)) and chart.bottom < chart.height


def test_a_long_name_is_cut_to_what_fits() -> None:
    assert charts.shortened("film reviews") == "film reviews"
    assert charts.shortened("x" * 100, 10) == "xxxxxxxxx…"
    # Two columns each; and an accent of its own takes none.
    assert charts.shortened("評" * 10, 10) == "評評評評…"
    assert charts.shortened("e\u0301" * 10, 10) == "e\u0301" * 10


def test_a_chart_is_told_in_words() -> None:
    few = telling.line(["v0", "v1", "v2"], [Value(60.0, 0.5), None, Value(61.5)])
    assert few == "v0 60.00 ± 0.50, v2 61.50"
    many = telling.line([f"v{i}" for i in range(100)], plain(*range(50, 100), *range(50)))
    assert many == "from v0 50.00, to v99 49.00, lowest v50 0.00, highest v49 99.00"


def test_scores_read_with_their_errors() -> None:
    assert formats.value(Value(84.2, 0.9)) == "84.20 ± 0.90"
    assert formats.gain(Value(-2.1, 0.9)) == "\N{MINUS SIGN}2.10 ± 0.90"
    assert formats.value(Value(84.2)) == "84.20"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_only_text_in_markdown(name: str) -> None:
    text = formats.markdown(name)
    assert "\n" not in text and "<" not in text and ">" not in text
    assert not re.search(r"(?<!\\)[`|\[\]!:]", text)
    assert not any(unicodedata.category(character) == "Cc" for character in text)


def test_an_ordinary_name_stays_in_markdown() -> None:
    assert formats.markdown("film reviews (2)") == "film reviews (2)"
    assert formats.markdown("see www.evil.example") == r"see www\.evil.example"


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
    assert formats.sentence("v3 was worse") == "v3 was worse."


def test_percent_is_full_only_at_the_end() -> None:
    assert [formats.percent(*pair) for pair in ((0, 0), (999, 1000), (5, 5), (6, 5))] == [
        0,
        99,
        100,
        100,
    ]


def test_every_state_has_a_tone_and_words() -> None:
    assert set(words.TONES) == {*ContributionState, *RoundState, *ReplayState, *DeliveryState}
    assert set(words.CONTRIBUTION_TEXTS) == set(ContributionState)
    assert set(words.ROUND_TEXTS) == set(RoundState)


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ({}, ""),
        ({"staleness": 0, "factor": 1.0}, ""),
        ({"carried": 1}, "kept for later: moved on to a later round once"),
        (
            {"staleness": 1, "factor": 0.5},
            "made 1 base away from the one it goes onto, so that it counts 0.50 times",
        ),
        (
            {"staleness": 3, "factor": 0.5, "carried": 2},
            "moved on to a later round 2 times; made 3 bases",
        ),
    ],
)
def test_how_late_a_contribution_is_in_words(late: dict[str, Any], said: str) -> None:
    item = Contribution.model_construct(**{"staleness": None, "factor": None, "carried": 0, **late})
    found = words.lateness(item)
    assert said in found and bool(said) == bool(found)


@pytest.mark.parametrize(
    ("accepted", "policy", "hours", "sentence", "has_time"),
    [
        (0, {"min_contributions": 2}, 0, "Needs 2 more accepted contributions", False),
        (1, {"min_contributions": 2, "deadline_seconds": 7200}, 1, "Needs 1 more", True),
        (1, {"min_contributions": 2, "deadline_seconds": 7200}, 3, "then closes at once", False),
        (2, {"min_contributions": 2}, 0, "about to close", False),
        (
            1,
            {"min_contributions": 2, "min_contributors": 2},
            0,
            "from 1 further contributor",
            False,
        ),
        (0, {"by_hand": True}, 0, "then a maintainer closes it by hand.", False),
        (1, {"by_hand": True}, 0, "A maintainer closes it by hand.", False),
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
    accepted: int, policy: dict[str, Any], hours: int, sentence: str, has_time: bool
) -> None:
    rules = Policy.model_validate(policy)
    ends = None
    if rules.deadline_seconds is not None:
        ends = NOW + timedelta(seconds=rules.deadline_seconds)
    lacking = missing(rules, [Waiting(str(n), "ann", None, None, n) for n in range(accepted)])
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
        missing=lacking.contributions,
        needs=lacking.text,
        fused_bytes=0,
        total_bytes=0,
        reason=None,
    )
    closing = words.closing(opened, rules, NOW + timedelta(hours=hours))
    assert sentence in closing.sentence
    assert (closing.at is not None) == has_time
