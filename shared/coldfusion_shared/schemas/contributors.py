"""Contributors, and keeping them out."""

from __future__ import annotations

from pydantic import Field

from coldfusion_shared.schemas.common import Reason, Request


class Block(Request):
    """Why somebody is kept out."""

    reason: Reason = Field(description="why; operators read it, and the audit log")
