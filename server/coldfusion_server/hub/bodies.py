"""JSON bodies of hub clients: what we need of them is checked, what newer ones add is ignored."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from coldfusion_server.hub.routing import Call
from coldfusion_shared.errors import InvalidRequest

Read = TypeVar("Read", bound="Body")


class Body(BaseModel):
    """A body; what we do not know of it is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def read(call: Call, kind: type[Read]) -> Read:
    """Return the body of a call as `kind`; raises `InvalidRequest`."""
    try:
        return kind.model_validate(json.loads(call.body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise InvalidRequest(f"The body cannot be read: {where}: {first['msg'][:200]}.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is no JSON.") from None
