"""What the gate lets pass besides the usual: for routes that say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope


@dataclass(frozen=True)
class Admission:
    """
    What a route asks of the gate.

    Attributes:
        visitors: whether a body may come without a token: the route changes nothing, or the URL is
            the credential.
        body_bytes: how large a body may be that is read here; null: as the setting says.
        streams: whether the route reads the body itself, after it has looked who sends it.
        own_tokens: whether the Authorization header holds something that the route itself knows,
            and no token of the Repository.
    """

    visitors: bool = False
    body_bytes: int | None = None
    streams: bool = False
    own_tokens: bool = False


# Null: a request to which nothing special applies.
Admit = Callable[[Scope], Admission | None]
