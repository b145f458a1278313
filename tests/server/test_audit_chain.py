"""The chain of the audit log: whatever is done to it shows, and the first entry is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.events.chain import START, Head, check, digest, seal
from coldfusion_shared.errors import AuditBroken, InvalidRequest
from coldfusion_shared.schemas.audit import AuditEntry

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NULLABLE = st.none() | TEXTS
VALUES = st.recursive(
    NULLABLE | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "at": TEXTS, "by": TEXTS, "token": NULLABLE, "action": TEXTS, "model": NULLABLE,
    "subject": NULLABLE, "reason": NULLABLE, "data": st.dictionaries(TEXTS, VALUES, max_size=2),
}  # fmt: skip
LOGS = st.lists(st.fixed_dictionaries(FIELDS), min_size=1, max_size=5)
PLAIN: dict[str, Any] = {
    "at": "now", "by": "ann", "token": None, "action": "model.policy", "model": None,
    "subject": None, "reason": "why", "data": {},
}  # fmt: skip


def log_of(entries: Sequence[dict[str, Any]], head: Head = START) -> list[AuditEntry]:
    """Return a sound log, or the part of one that comes behind `head`."""
    made: list[AuditEntry] = []
    for fields in entries:
        made.append(seal(head, **fields))
        head = Head(made[-1].number, made[-1].sha256)
    return made


def head_of(log: Sequence[AuditEntry]) -> Head:
    return Head(log[-1].number, log[-1].sha256) if log else START


@given(LOGS)
def test_a_log_as_it_was_written_is_sound_with_all_heads_that_it_ever_had(
    entries: list[dict[str, Any]],
) -> None:
    log = log_of(entries)
    for count in range(len(log) + 1):
        assert check(log, head_of(log[:count])) == head_of(log)
    assert check(log) == head_of(log)


@given(LOGS, st.data())
def test_a_changed_field_is_found_and_its_entry_named(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of(entries)
    at = draw.draw(st.integers(0, len(log) - 1))
    field = draw.draw(st.sampled_from([*FIELDS, "previous", "sha256"]))
    before = getattr(log[at], field)
    # 1 and 1.0 and true are equal here, and not in JSON.
    value = draw.draw(FIELDS.get(field, TEXTS).filter(lambda v: json.dumps(v) != json.dumps(before)
                                                      and not _same(v, before)))  # fmt: skip
    log[at] = log[at].model_copy(update={field: value})
    with pytest.raises(AuditBroken, match=f"Entry {at + 1} "):
        check(log)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(LOGS, st.data())
def test_a_changed_entry_with_a_new_digest_is_found_by_the_next_one_or_by_a_noted_head(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of(entries)
    head, at = head_of(log), draw.draw(st.integers(0, len(log) - 1))
    forged = log[at].model_copy(update={"reason": f"not {log[at].reason}"})
    log[at] = forged.model_copy(update={"sha256": digest(forged)})
    with pytest.raises(AuditBroken, match=f"entry {at + 1}|Entry {at + 1} "):
        check(log, head)
    if at + 1 < len(log):
        with pytest.raises(AuditBroken, match=f"Entry {at + 2} .* or entry {at + 1}, "):
            check(log)


@given(LOGS, st.data())
def test_a_removed_entry_is_found_and_the_last_one_by_a_noted_head(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of(entries)
    head, at = head_of(log), draw.draw(st.integers(0, len(log) - 1))
    del log[at]
    with pytest.raises(AuditBroken, match=f"Entry {at + 1} .* removed|ends with entry {at}, "):
        check(log, head)
    if at < len(log):
        with pytest.raises(AuditBroken, match=f"Entry {at + 1} .* removed"):
            check(log)


@given(LOGS, st.data())
def test_an_entry_that_was_put_in_is_found(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of(entries)
    at = draw.draw(st.integers(0, len(log) - 1))
    # As good as a forger can make it: in its place, with the digests that belong there.
    log.insert(at, seal(head_of(log[:at]), **{**PLAIN, "reason": "forged"}))
    with pytest.raises(AuditBroken, match=f"Entry {at + 1} .* put in"):
        check(log)


@given(LOGS, st.data())
def test_entries_in_another_order_are_found(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of([PLAIN, *entries])
    order = draw.draw(st.permutations(range(len(log))).filter(lambda o: o != sorted(o)))
    with pytest.raises(AuditBroken):
        check([log[at] for at in order])


@given(LOGS, st.data())
def test_a_log_that_was_written_anew_is_found_by_a_noted_head_alone(
    entries: list[dict[str, Any]], draw: st.DataObject
) -> None:
    log = log_of(entries)
    at = draw.draw(st.integers(0, len(log) - 1))
    changed = [*entries[:at], {**entries[at], "by": entries[at]["by"] + "!"}, *entries[at + 1 :]]
    forged = log_of(changed)
    assert check(forged) == head_of(forged)
    for count in range(at + 1, len(log) + 1):
        with pytest.raises(AuditBroken, match=f"Entry {count} .* noted"):
            check(forged, head_of(log[:count]))


def test_a_log_that_is_gone_is_found_by_a_noted_head() -> None:
    assert check([]) == START
    with pytest.raises(AuditBroken, match="ends with entry 0, and went up to entry 1 "):
        check([], head_of(log_of([PLAIN])))


@given(LOGS)
def test_the_digest_is_what_the_documentation_says(entries: list[dict[str, Any]]) -> None:
    for entry in log_of(entries):
        fields = json.loads(entry.model_dump_json())
        told = fields.pop("sha256")
        line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(line.encode()).hexdigest() == told


@given(LOGS)
def test_a_head_is_read_as_it_is_written(entries: list[dict[str, Any]]) -> None:
    head = head_of(log_of(entries))
    assert Head.parse(str(head)) == Head.parse(f" {head}\n") == head


@pytest.mark.parametrize("text", ["", "1", "1:", f"-1:{'0' * 64}", f"1:{'g' * 64}", f"1{'0' * 64}",
                                  f"99999999999:{'0' * 64}", f"1:{'0' * 65}"])  # fmt: skip
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no head"):
        Head.parse(text)
