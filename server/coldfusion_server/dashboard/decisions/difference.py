"""What changes, value by value: old beside new. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

NOT_SET = "not set"
_Place = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """
    One value that changes.

    Attributes:
        name: where it is, ``gate.kind``.
        old: as it is now, in words.
        new: as it will be.
    """

    name: str
    old: str
    new: str


def rows(old: BaseModel, new: BaseModel) -> list[Row]:
    """Return what differs, in the order of the model's fields; none: they are the same."""
    before, after = (dict(_flat(_values(one), ())) for one in (old, new))
    changed = [
        place
        for place in dict.fromkeys([*before, *after])
        if _exact(before, place) != _exact(after, place)
    ]
    return [
        _row(before, after, place)
        for place in changed
        # That there was nothing is said by what is there now.
        if not (_is_nothing(before, after, place) and any(_is_in(one, place) for one in changed))
    ]


def digest(model: BaseModel) -> str:
    """Return what tells one state of a model from all others."""
    return hashlib.sha256(_canonical(_values(model)).encode()).hexdigest()


def _values(model: BaseModel) -> Any:
    return model.model_dump()


def _flat(values: Any, place: _Place) -> Iterator[tuple[_Place, Any]]:
    if isinstance(values, Mapping) and values:
        for name, value in values.items():
            yield from _flat(value, (*place, str(name)))
    else:
        yield place, values


def _is_in(place: _Place, other: _Place) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _is_nothing(before: Mapping[_Place, Any], after: Mapping[_Place, Any], place: _Place) -> bool:
    return all(values.get(place) in (None, {}) for values in (before, after))


def _row(before: Mapping[_Place, Any], after: Mapping[_Place, Any], place: _Place) -> Row:
    told = [_told(values, place) for values in (before, after)]
    if told[0] == told[1]:
        # The text "yes" in the place of what is true, say.
        told = [_exact(values, place) for values in (before, after)]
    return Row(".".join(place), *told)


def _exact(values: Mapping[_Place, Any], place: _Place) -> str:
    return _canonical(values[place]) if place in values else NOT_SET


def _told(values: Mapping[_Place, Any], place: _Place) -> str:
    value = values.get(place)
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == {} or value == []:
        return "none"
    if isinstance(value, str):
        return value
    # As it stands in the form.
    return repr(value).removesuffix(".0") if isinstance(value, float) else _canonical(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
