"""Forms made from pydantic models, and differences of two of them: nothing is lost on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from coldfusion_server.dashboard.decisions import difference, forms, sections
from coldfusion_server.dashboard.decisions.catalogue import DECISIONS
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.rounds import CloseRequest

FIELDS = forms.fields(Policy)
FULL = Policy(
    by_hand=True,
    max_contributions=7,
    max_share_per_task=0.1 + 0.2,
    contributor_weights={"ann\n": 1e-05, 'b"o,b': 3},
    dare={"density": 0.5, "seed": 2**62},  # type: ignore[arg-type]
    gate={"kind": "suite", "suite": "s", "max_dataset_loss": 0.0},  # type: ignore[arg-type]
    line_search=[0.5, 1e-17, 100],
    encodings=["full", "lora"],
    parameters={"deep": [{"é": None}, True], "infinite": float("inf")},
    screening={"norm": {}, "direction": {"enabled": False}},
    keep_contributions=0,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def _share(top: float, *, least: float = 0.0) -> st.SearchStrategy[float]:
    return st.floats(least, top, exclude_min=least == 0.0, allow_subnormal=False)


_policies = st.fixed_dictionaries(
    {},
    optional={
        "method": st.text(st.characters(exclude_categories=["C"]), max_size=20),
        "parameters": st.dictionaries(st.text(), _json, max_size=3),
        "dare": st.none()
        | st.fixed_dictionaries({"density": _share(1)}, optional={"seed": st.integers(0, 2**62)}),
        "staleness_exponent": _share(10),
        "server_lr": st.none() | st.just("auto") | _share(100),
        "pull": st.floats(0, 1),
        "step_cap": st.none() | _share(10),
        "by_hand": st.booleans(),
        "min_contributions": st.integers(1, 10_000),
        "max_contributions": st.none() | st.integers(1, 10_000),
        "deadline_seconds": st.none() | st.integers(1, 366 * 86_400),
        "max_share_per_contributor": st.none() | _share(1),
        "contributor_weights": st.dictionaries(_name, st.floats(0, 1000), max_size=3),
        "after_rollback": st.sampled_from(["rebase", "refuse"]),
        "gate": st.fixed_dictionaries(
            {"kind": st.just("suite"), "suite": st.from_regex(r"\A[A-Za-z0-9][a-z.-]{0,9}\Z")},
            optional={"tolerance": st.floats(0, 100), "max_dataset_loss": st.floats(0, 100)},
        ),
        "line_search": st.lists(_share(100), min_size=2, max_size=5, unique=True),
        "encodings": st.none()
        | st.lists(st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,39}\Z"), min_size=1, max_size=4),
        "screening": st.dictionaries(_name, st.dictionaries(_name, _json, max_size=2), max_size=2),
        "keep_contributions": st.none() | st.integers(0, 1_000_000),
    },
)  # fmt: skip


def policy_of(values: dict[str, Any]) -> Policy | None:
    try:
        return Policy.model_validate(values)
    except ValidationError:
        return None  # Some of them contradict themselves.


def there_and_back(policy: Policy) -> Policy:
    sent = forms.written(FIELDS, policy.model_dump())
    # As browsers send what stands in a box.
    sent = {name: [one.replace("\n", "\r\n") for one in given] for name, given in sent.items()}
    values, faults = forms.read(FIELDS, sent)
    assert not faults
    found, faults = forms.validated(Policy, FIELDS, values)
    assert found is not None, faults
    return found


@settings(deadline=None, max_examples=150)
@given(_policies)
@example({})
def test_every_policy_goes_through_a_form(values: dict[str, Any]) -> None:
    policy = policy_of(values)
    if policy is not None:
        found = there_and_back(policy)
        assert found == policy
        assert difference.rows(policy, found) == []
        assert difference.digest(policy) == difference.digest(found)


def test_a_full_policy_goes_through_a_form() -> None:
    assert there_and_back(FULL) == FULL
    assert there_and_back(Policy()) == Policy()


@settings(deadline=None, max_examples=150)
@given(_policies, _policies)
def test_two_policies_differ_if_and_only_if_rows_say_so(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    old, new = policy_of(one), policy_of(other)
    if old is not None and new is not None:
        rows = difference.rows(old, new)
        assert (rows == []) == (difference.digest(old) == difference.digest(new))
        assert all(row.old != row.new for row in rows)


def test_a_difference_names_what_changes_and_nothing_else() -> None:
    new = FULL.model_copy(update={"by_hand": False, "dare": None, "screening": {"norm": {"a": 1}}})
    assert difference.rows(FULL, new) == [
        difference.Row("dare.density", "0.5", "not set"),
        difference.Row("dare.seed", str(2**62), "not set"),
        difference.Row("by_hand", "yes", "no"),
        difference.Row("screening.direction.enabled", "no", "not set"),
        difference.Row("screening.norm.a", "not set", "1"),
    ]


class Loose(BaseModel):
    free: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": "yes"}, {"a": True}),
        ({"a": None}, {}),
        ({"a": {}}, {}),
        ({"a": {}}, {"a": []}),
        ({"a": 1}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": "1"}, {"a": 1}),
    ],
)
def test_what_looks_alike_and_is_not_the_same_is_a_difference(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    for one, other in ((old, new), (new, old)):
        rows = difference.rows(Loose(free=one), Loose(free=other))
        assert rows and all(row.old != row.new for row in rows)
    assert difference.rows(Loose(free=old), Loose(free=old)) == []


def test_every_field_stands_in_one_section() -> None:
    found = sections.sections(FIELDS, sections.POLICY)
    names = [field.name for section in found for field in section.fields]
    assert sorted(names) == sorted(Policy.model_fields)
    assert [section.title for section in found] == [title for title, _ in sections.POLICY]


def test_a_field_that_no_section_names_is_not_lost() -> None:
    found = sections.sections(FIELDS, sections.POLICY[1:])
    assert found[-1].title == "More"
    assert {field.name for field in found[-1].fields} == set(sections.POLICY[0][1])


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda one: f"{one.kind}-{one.name}")
def test_every_field_is_described(decision: Any) -> None:
    for field in forms.leaves(forms.fields(decision.request)):
        assert field.description or field.words, field.name
        assert field.label[0].isupper() and "_" not in field.label
    assert not any(one.name.startswith("_") for one in forms.fields(decision.request))


class Odd(BaseModel):
    """What our own requests have, at its edges."""

    whole: int = Field(default=3, ge=1, le=9)
    real: float | None = Field(default=None, gt=0, lt=1)
    either: float | Literal["auto"] = Field(default="auto")
    word: Literal["a", "b"] = "a"
    text: str | None = Field(default=None, max_length=5)
    needed: str = Field(min_length=1)
    lines: list[int] = Field(default=[], max_length=2)
    free: dict[str, int] = {}


ODD = forms.fields(Odd)


def filled(**values: str) -> tuple[Odd | None, dict[str, str]]:
    sent = {field.name: [""] for field in ODD if field.kind != "choice"}
    sent |= {"needed": ["x"]} | {name: [value] for name, value in values.items()}
    read, faults = forms.read(ODD, sent)
    return (None, faults) if faults else forms.validated(Odd, ODD, read)


def test_what_is_left_empty_is_the_default() -> None:
    assert filled() == (Odd(needed="x"), {})


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"whole": " 4 "}, {"whole": 4}),
        ({"real": "1e-3"}, {"real": 0.001}),
        ({"either": "auto"}, {"either": "auto"}),
        ({"either": "2"}, {"either": 2.0}),
        ({"text": " a\r\nb"}, {"text": " a\nb"}),
        ({"lines": "1\r\n\r\n 2 \r\n"}, {"lines": [1, 2]}),
        ({"free": '{"a":\r\n 1}'}, {"free": {"a": 1}}),
    ],
)
def test_what_is_filled_in_is_read(values: dict[str, str], wanted: dict[str, Any]) -> None:
    assert filled(**values) == (Odd(**{"needed": "x", **wanted}), {})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("whole", "4.5", "This has to be a whole number."),
        ("whole", "٣", "This has to be a whole number."),
        ("whole", "0", "This has to be 1 or more."),
        ("whole", "10", "This has to be 9 or less."),
        ("real", "0", "This has to be more than 0."),
        ("real", "1", "This has to be less than 1."),
        ("real", "1_0", "This has to be a number."),
        ("either", "automatic", "This has to be a number, or auto."),
        ("word", "c", "This has to be 'a' or 'b'."),
        ("text", "abcdef", "This has to have 5 letters at most."),
        ("needed", "", "This is needed."),
        ("lines", "1\nx", "Line 2: This has to be a whole number."),
        ("lines", "1\n2\n3", "This has to have 2 values at most."),
        ("free", "[1]", "This has to be a JSON object, in curly brackets."),
        ("free", '{"a": "x"}', "a: This has to be a whole number."),
        ("free", '{"a": 1, "a": 2}', "This names something twice."),
        ("free", "{a: 1}", "at line 1, column 2."),
        ("free", "[" * 100_000, "This is nested too deeply."),
        ("free", f'{{"a": 1{"0" * 5000}}}', "This has a number in it that is too long."),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(name: str, value: str, sentence: str) -> None:
    found, faults = filled(**{name: value})
    assert found is None and list(faults) == [name]
    assert sentence in faults[name]


def test_what_concerns_several_fields_stands_alone() -> None:
    values, _ = forms.read(FIELDS, {"max_contributions": ["1"], "min_contributions": ["2"]})
    found, faults = forms.validated(Policy, FIELDS, values)
    assert found is None
    assert faults == {"": "max_contributions is smaller than min_contributions."}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-06-01T18:30", datetime(2026, 6, 1, 18, 30, tzinfo=UTC)),
        ("2026-06-01T18:30+02:00", datetime(2026, 6, 1, 16, 30, tzinfo=UTC)),
        ("", None),
    ],
)
def test_times_are_utc(text: str, wanted: datetime | None) -> None:
    fields = forms.fields(CloseRequest)
    values, faults = forms.read(fields, {"at": [text]})
    assert not faults and values.get("at") == wanted
    assert wanted is None or values["at"].tzinfo is UTC, "pages write it as it is"
    shown = forms.written(fields, {"at": wanted})["at"]
    assert forms.read(fields, {"at": shown})[0].get("at") == wanted


@pytest.mark.parametrize("text", ["0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59"])
def test_a_time_that_is_none_in_utc_is_refused(text: str) -> None:
    values, faults = forms.read(forms.fields(CloseRequest), {"at": [text]})
    assert not values and "This has to be a time" in faults["at"]


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([f.name for f in forms.leaves(FIELDS)]),
                       st.lists(st.text(), max_size=2)))  # fmt: skip
def test_whatever_is_sent_is_read_or_refused(sent: dict[str, list[str]]) -> None:
    values, faults = forms.read(FIELDS, sent)
    if not faults:
        found, faults = forms.validated(Policy, FIELDS, values)
        assert (found is None) == bool(faults)
    assert all(fault == fault.strip() and fault for fault in faults.values())
    assert json.dumps(faults)
