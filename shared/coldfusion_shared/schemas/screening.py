"""What a Repository screens contributions by."""

from __future__ import annotations

from coldfusion_shared.schemas.common import Response
from coldfusion_shared.schemas.fusion import ParameterDescription


class CheckDescription(Response):
    """A screening check, as the `screening` of a policy can name it."""

    name: str
    summary: str
    parameters: list[ParameterDescription]
