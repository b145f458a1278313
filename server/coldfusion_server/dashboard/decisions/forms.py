"""
Forms made from pydantic models, and what was filled in made into one again. Pure.

A field's description, bounds and choices are read from the model's JSON schema: a field that is
added there is in the form, too. Names of nested fields are joined by dots: ``gate.kind``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

Kind = Literal["switch", "choice", "number", "text", "moment", "lines", "json", "group"]
# What was sent, by name: a name may come several times, and that of an empty box not at all.
Sent = Mapping[str, Sequence[str]]
Wanted = TypeVar("Wanted", bound=BaseModel)

# Texts that may be longer are written into a box of several lines.
LINE = 120
# A bound that is farther away is the machine's, and not worth a word.
FARTHEST = 1e15
# Digits of a whole number in JSON; Python reads no more than some thousands.
LONGEST_WHOLE = 1000
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")


@dataclass(frozen=True)
class Field:
    """
    One field of a form.

    Attributes:
        name: of the value, the names of what it is in before it.
        description: what it means.
        kind: how it is filled in.
        required: whether there is nothing that it is where it is not given.
        nullable: whether leaving it empty means that there is none.
        words: what it may be, one of them; of a number: instead of one.
        whole: whether a number has no fraction.
        bounds: between what a number lies, in words; empty: anywhere.
        longest: letters of a text, or values of a list, at most; null: any number.
        default: as it is written where it is left empty; null: it must not be, or is none.
        inner: the fields of a group.
    """

    name: str
    description: str = ""
    kind: Kind = "text"
    required: bool = False
    nullable: bool = False
    words: tuple[str, ...] = ()
    whole: bool = False
    bounds: str = ""
    longest: int | None = None
    default: str | None = None
    inner: tuple[Field, ...] = ()

    @property
    def label(self) -> str:
        """Its name as people read it."""
        words = self.name.rpartition(".")[2].replace("_", " ")
        return words[:1].upper() + words[1:]

    @property
    def long(self) -> bool:
        """Whether it takes a box of several lines."""
        return self.kind in ("lines", "json") or (
            self.kind == "text" and (self.longest or LINE) > LINE
        )


def fields(model: type[BaseModel], without: Iterable[str] = ()) -> tuple[Field, ...]:
    """Return the fields of a form for `model`, in its order, without those of these names."""
    schema = model.model_json_schema()
    left = set(without)
    return tuple(
        field for field in _fields(schema, schema.get("$defs", {}), "") if field.name not in left
    )


def leaves(found: Iterable[Field]) -> Iterator[Field]:
    """Yield the fields that are filled in: those of groups, and not the groups."""
    for field in found:
        if field.kind == "group":
            yield from leaves(field.inner)
        else:
            yield field


def written(found: Iterable[Field], values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return how `values`, nested as the model has them, stand in the form."""
    shown: dict[str, list[str]] = {}
    for field in found:
        value = values.get(field.name.rpartition(".")[2])
        if field.kind == "group":
            shown |= written(field.inner, value or {})
        elif field.kind == "switch":
            shown[field.name] = ["yes"] if value else []
        else:
            shown[field.name] = [_written(field, value)]
    return shown


def read(found: Iterable[Field], sent: Sent) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what was filled in, nested as the model has it, and what cannot be read, by field."""
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for field in found:
        name = field.name.rpartition(".")[2]
        if field.kind == "group":
            if field.nullable and not any(_given(one, sent) for one in leaves(field.inner)):
                continue
            values[name], inner = read(field.inner, sent)
            faults |= inner
        elif _given(field, sent) or field.kind == "switch":
            try:
                values[name] = _value(field, sent.get(field.name, ()))
            except ValueError as fault:
                faults[field.name] = str(fault)
    return values, faults


def validated(
    model: type[Wanted], found: Iterable[Field], values: Mapping[str, Any]
) -> tuple[Wanted | None, dict[str, str]]:
    """
    Return the model of `values`, or null, and what is wrong with them.

    What is wrong is told by the name of the field; what concerns several stands under "".
    """
    try:
        return model.model_validate(dict(values)), {}
    except ValidationError as error:
        by_name = {field.name: field for field in leaves(found)}
        faults: dict[str, str] = {}
        for one in error.errors(include_url=False, include_context=True):
            field = _at(by_name, [str(part) for part in one["loc"]])
            name = "" if field is None else field.name
            faults.setdefault(name, _told(field, one))
        return None, faults


def _fields(schema: Mapping[str, Any], parts: Mapping[str, Any], prefix: str) -> Iterator[Field]:
    needed = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        yield _field(f"{prefix}{name}", one, parts, name in needed)


def _field(name: str, schema: Mapping[str, Any], parts: Mapping[str, Any], required: bool) -> Field:
    kinds = [_resolved(one, parts) for one in schema.get("anyOf", [schema])]
    given = [one for one in kinds if one.get("type") != "null"]
    field = Field(
        name=name,
        # An empty box is what the API calls null.
        description=schema.get("description", "").replace("null:", "left empty:"),
        required=required,
        nullable=len(given) < len(kinds),
    )
    words = tuple(word for one in given for word in _words(one))
    first = next((one for one in given if not _words(one)), {})
    field = replace(field, words=words, **_kind(name, first, parts, words))
    return replace(field, default=_default(field, schema))


def _kind(
    name: str, schema: Mapping[str, Any], parts: Mapping[str, Any], words: Sequence[str]
) -> dict[str, Any]:
    """Return what the part of the schema that is not a list of words says of a field."""
    kind = schema.get("type")
    if kind is None and words:
        return {"kind": "choice"}
    if kind == "boolean":
        return {"kind": "switch"}
    if kind in ("integer", "number"):
        return {"kind": "number", "whole": kind == "integer", "bounds": _bounds(schema)}
    if kind == "string" and schema.get("format") == "date-time":
        return {"kind": "moment"}
    if kind == "string":
        return {"kind": "text", "longest": schema.get("maxLength")}
    if kind == "array" and schema.get("items", {}).get("type") in ("string", "number", "integer"):
        return {"kind": "lines", "longest": schema.get("maxItems")}
    if kind == "object" and "properties" in schema:
        return {"kind": "group", "inner": tuple(_fields(schema, parts, f"{name}."))}
    return {"kind": "json"}


def _resolved(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    named = schema.get("$ref")
    found: Mapping[str, Any] = schema if named is None else parts[named.rpartition("/")[2]]
    return found


def _words(schema: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(schema.get("enum", (schema["const"],) if "const" in schema else ()))


def _bounds(schema: Mapping[str, Any]) -> str:
    at_least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    at_most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if below is not None and below > FARTHEST:
        below = None
    if at_least is not None and at_most is not None:
        return f"{_count(at_least)} to {_count(at_most)}"
    said = [
        f"{words} {_count(value)}"
        for words, value in (
            ("at least", at_least), ("more than", above), ("at most", at_most), ("less than", below)
        )
        if value is not None
    ]  # fmt: skip
    return ", ".join(said)


def _count(value: float) -> str:
    """Return a bound as people read it."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _default(field: Field, schema: Mapping[str, Any]) -> str | None:
    value = schema.get("default")
    if value is None or field.kind in ("group", "switch"):
        return None
    return _written(field, value) or None


def _written(field: Field, value: Any) -> str:
    if value is None:
        return ""
    if field.kind == "json":
        # Nothing is written for an empty one: that is what leaving it empty means.
        return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
    if field.kind == "lines":
        return "\n".join(_number(one) for one in value)
    if field.kind == "moment":
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")
    return _number(value)


def _number(value: Any) -> str:
    """Return a number as short as it is still the same one; anything else as it is."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _given(field: Field, sent: Sent) -> bool:
    """Return whether something stands in a field; an empty text that is no null is something."""
    values = sent.get(field.name)
    if values is None:
        return False
    return any(values) or (field.kind == "text" and not field.nullable)


def _value(field: Field, sent: Sequence[str]) -> Any:
    """Return the value of a field; raises `ValueError`, with a sentence, where there is none."""
    text = sent[-1].replace("\r\n", "\n") if sent else ""
    match field.kind:
        case "switch":
            return bool(text)
        case "number":
            return text.strip() if text.strip() in field.words else _to_number(field, text.strip())
        case "lines":
            return [line.strip() for one in sent for line in one.splitlines() if line.strip()]
        case "moment":
            return _to_moment(text.strip())
        case "json":
            return _to_json(text)
        case _:
            return text


def _to_number(field: Field, text: str) -> float:
    if _WHOLE.fullmatch(text):
        return int(text) if field.whole else float(text)
    try:
        if field.whole or "_" in text or not text.isascii():
            raise ValueError
        return float(text)
    except ValueError:
        kind = "a whole number" if field.whole else "a number"
        others = "".join(f", or {word}" for word in field.words)
        raise ValueError(f"This has to be {kind}{others}.") from None


def _to_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        # As it is shown everywhere. What other zones call the first or the last day may be none.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("This has to be a time such as 2026-06-01T18:30.") from None


def _to_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_int=_to_whole)
    except json.JSONDecodeError as fault:
        raise ValueError(
            f"This is not JSON: {fault.msg.lower()}, at line {fault.lineno}, column {fault.colno}."
        ) from None
    except RecursionError:
        raise ValueError("This is nested too deeply.") from None


def _to_whole(text: str) -> int:
    if len(text) > LONGEST_WHOLE:
        raise ValueError("This has a number in it that is too long.")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("This names something twice.")
    return found


def _at(by_name: Mapping[str, Field], place: Sequence[str]) -> Field | None:
    """Return the field that has what is at `place`; null: several, or none."""
    for end in range(len(place), 0, -1):
        found = by_name.get(".".join(place[:end]))
        if found is not None:
            return found
    return None


# What pydantic finds, as people read it; what is not here it says well enough itself.
_SENTENCES = {
    "missing": "This is needed.",
    "string_too_short": "This is needed.",
    "too_short": "This is needed.",
    "int_parsing": "This has to be a whole number.",
    "int_from_float": "This has to be a whole number.",
    "int_type": "This has to be a whole number.",
    "float_parsing": "This has to be a number.",
    "float_type": "This has to be a number.",
    "finite_number": "This has to be a number that is not infinite.",
    "greater_than_equal": "This has to be {ge} or more.",
    "greater_than": "This has to be more than {gt}.",
    "less_than_equal": "This has to be {le} or less.",
    "less_than": "This has to be less than {lt}.",
    "string_too_long": "This has to have {max_length} letters at most.",
    "too_long": "This has to have {max_length} values at most.",
    "literal_error": "This has to be {expected}.",
    "dict_type": "This has to be a JSON object, in curly brackets.",
}


def _told(field: Field | None, error: Any) -> str:
    """Return an error as a sentence, with where in its field it is."""
    context = {key: _number(value) for key, value in error.get("ctx", {}).items()}
    sentence = _SENTENCES.get(error["type"], "").format_map(context)
    if not sentence:
        said = error["msg"].removeprefix("Value error, ").rstrip(".")
        # The name of a field stays as it is.
        named = "_" in said.partition(" ")[0]
        sentence = f"{said}." if named else f"{said[:1].upper()}{said[1:]}."
    if field is None or field.kind not in ("json", "lines"):
        return sentence
    inside = error["loc"][len(field.name.split(".")) :]
    if not inside:
        return sentence
    if field.kind == "lines":
        return f"Line {inside[0] + 1}: {sentence}"
    place = ".".join(str(one)[:60] for one in inside if one != "[key]")
    return f"{place}: {sentence}"
