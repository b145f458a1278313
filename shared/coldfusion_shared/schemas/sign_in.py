"""Signing in by a provider of identities (OpenID Connect)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from coldfusion_shared.schemas.common import Request, Response
from coldfusion_shared.schemas.tokens import Role

# Of an id token, in letters; a person in hundreds of groups has one of a few thousand.
LONGEST_ID_TOKEN = 12_000


class SignInOffer(Response):
    """How a program signs a person in by the device grant (RFC 8628), at the provider itself."""

    issuer: str = Field(description="URL of the provider")
    client_id: str = Field(description="id of coldfusion-client at the provider; it has no secret")
    scope: str = Field(description="scopes to ask for, with spaces between")
    device_authorization_endpoint: str
    token_endpoint: str


class SignIn(Request):
    """What the provider says of somebody."""

    id_token: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID_TOKEN)] = Field(
        description="as the token endpoint gave it; good once, and for a few minutes"
    )


class SignedIn(Response):
    """The token of whoever has signed in."""

    token: str = Field(description="shown this once")
    name: str
    role: Role
    expires_at: datetime
