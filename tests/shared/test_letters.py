from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.letters import width, wrapped


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("电影", 4), ("e\u0301", 1), ("", 0), ("ｆ", 2)]
)
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("films", "films"),
        ("film reviews", "film\nreviews"),
        ("tweet_eval_emotion", "tweet_\neval_…"),
        ("x" * 30, "x" * 10 + "\n" + "x" * 9 + "…"),
        ("电影评论情感", "电影评论情\n感"),
        ("a\x01b\nc", "a b c"),
        ("", ""),
    ],
)
def test_names_are_broken_between_words_and_cut(text: str, shown: str) -> None:
    assert wrapped(text, 10, 2) == shown


@given(st.text(), st.integers(2, 12), st.integers(1, 3))
def test_no_line_is_too_wide_and_nothing_is_lost_unsaid(
    text: str, columns: int, lines: int
) -> None:
    shown = wrapped(text, columns, lines)
    assert len(shown.split("\n")) <= lines
    assert all(width(line) <= columns for line in shown.split("\n"))
    kept = "".join(letter for letter in text if letter.isprintable() and not letter.isspace())
    found = "".join(shown.split())
    assert found == kept or (shown.endswith("…") and kept.startswith(found[:-1]))
