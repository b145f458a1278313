"""Parameters of plug-ins: validated by pydantic, refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from coldfusion_shared.errors import InvalidRequest

P = TypeVar("P", bound="Parameters")


class Parameters(BaseModel):
    """Base of every plug-in's parameters; what a plug-in does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def validated(of: str, model: type[P], parameters: Mapping[str, Any]) -> P:
    """Return `parameters` as `model`; raises `InvalidRequest`, which says whose they are."""
    try:
        return model.model_validate(dict(parameters))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(model.model_fields) or "none"
        unknown = first["type"] == "extra_forbidden"
        what = "there is no such parameter" if unknown else first["msg"].lower()
        what = what.removeprefix("value error, ")
        about = f"Parameter {where!r} of {of}" if where else f"The parameters of {of}"
        raise InvalidRequest(f"{about}: {what}.", hint=f"Its parameters: {known}.") from None
