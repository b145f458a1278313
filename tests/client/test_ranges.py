from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from coldfusion_client.transfer.partial import PartialFile, held, journal_of
from coldfusion_client.transfer.ranges import merged, pieces

SIZES = st.integers(0, 300)
RANGES = st.lists(st.tuples(st.integers(-5, 320), st.integers(-5, 320)), max_size=12)


def covered(ranges: list[tuple[int, int]], size: int) -> set[int]:
    return {byte for start, end in ranges for byte in range(start, end)} & set(range(size))


@given(SIZES, RANGES, st.integers(1, 64))
def test_what_is_fetched_and_what_is_there_cover_the_file_exactly_once(
    size: int, finished: list[tuple[int, int]], step: int
) -> None:
    cut = pieces(size, finished, step)
    assert [piece.start for piece in cut] == [0, *(piece.end for piece in cut)][: len(cut)]
    assert (cut[-1].end if cut else 0) == size
    fetched = [(piece.at, piece.end) for piece in cut]
    assert covered(fetched, size) == set(range(size)) - covered(finished, size)
    assert all(piece.start < piece.end for piece in cut)
    assert all(piece.end - piece.at <= step for piece in cut)


@given(SIZES, RANGES)
def test_merged_ranges_cover_the_same_and_lie_apart(
    size: int, ranges: list[tuple[int, int]]
) -> None:
    found = merged(size, ranges)
    assert covered(found, size) == covered(ranges, size)
    assert all(end < start for (_, end), (start, _) in zip(found, found[1:], strict=False))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=8), st.data())
def test_a_torn_journal_claims_nothing_that_was_not_noted(
    tmp_path_factory: object, ranges: list[tuple[int, int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")  # type: ignore[attr-defined]
    file = PartialFile(folder / "part", 300)
    file.take_up()
    file.path.write_bytes(bytes(300))
    for start, end in ranges:
        file.note(start, end)
    journal = journal_of(file.path)
    raw = journal.read_bytes()
    journal.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    # The next process takes it up and goes on writing.
    assert covered(file.take_up(), 300) <= covered(ranges, 300)
    file.note(7, 9)
    assert covered(held(file.path, 300), 300) <= covered([*ranges, (7, 9)], 300)
    assert covered(held(file.path, 300), 300) >= {7, 8}


def test_a_journal_claims_nothing_behind_the_end_of_the_file(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "part", 100)
    file.take_up()
    file.path.write_bytes(bytes(30))
    file.note(0, 20)
    file.note(25, 60)
    assert file.take_up() == [(0, 20), (25, 30)]


def test_a_file_of_an_older_client_counts_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(bytes(130))
    assert held(path, 200) == [(0, 130)]
    assert PartialFile(path, 100).take_up() == [(0, 100)]
    assert path.stat().st_size == 100


def test_a_journal_without_its_file_claims_nothing(tmp_path: Path) -> None:
    journal_of(tmp_path / "part").write_text("0 50\n")
    assert PartialFile(tmp_path / "part", 100).take_up() == []


def test_nothing_is_left_of_a_discarded_file(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "part", 100)
    file.take_up()
    file.note(0, 0)
    file.discard()
    assert list(tmp_path.glob("part*")) == []
