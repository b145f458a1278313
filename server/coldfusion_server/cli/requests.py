"""What a command was told, checked as the API checks what it is sent."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.common import Version
from coldfusion_shared.schemas.rounds import Round

T = TypeVar("T", bound=BaseModel)


def checked(schema: type[T], **values: Any) -> T:
    """Return `values` as `schema`; raises `InvalidRequest`, which names what is wrong."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"{where} cannot be {first['input']!r:.100}: {first['msg']}."
        ) from None


def base_version(text: str) -> str:
    """Return `text` if it is a base's version, such as ``v3``; raises `InvalidRequest`."""
    try:
        return TypeAdapter(Version).validate_python(text)
    except ValidationError:
        raise InvalidRequest(
            f"{text[:20]!r} is no base's version.", hint="Write it like v4."
        ) from None


def number_needed(newest: Round, action: str, rest: str = "") -> InvalidRequest:
    """Return the refusal of a command that names no round: given twice, it would act on two."""
    return InvalidRequest(
        f"Which round? The newest one, round {newest.number}, is {newest.state}. A command without "
        "its number, given twice, would act on the next one, too.",
        hint=f"For that one: coldfusion-server round {action} {newest.model} {newest.number}{rest}",
    )
