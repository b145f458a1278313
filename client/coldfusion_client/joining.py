"""The code of an invitation becomes a token, which is kept as `login` keeps one."""

from __future__ import annotations

import secrets

from coldfusion_client import config
from coldfusion_client.api import Api
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.invitations import Join, Joined


def join(api: Api, code: str, name: str | None) -> Joined:
    """
    Use an invitation at the server of `api`, which becomes the default one.

    Args:
        api: the server, without a token.
        code: of the invitation.
        name: the name to go by; null: the one that the invitation says.

    Raises:
        InvitationRefused: the code is wrong, was used, has expired or was revoked.
        InvalidRequest: there is no name, or one that cannot be.
        NameTaken: somebody has the name.
        ConfigurationError: the file of tokens is damaged; the invitation was not used.
    """
    wanted = _checked(code, name)
    file = config.credentials_file()
    credentials = config.load_credentials(file)
    # A token that could not be kept would be lost, and the invitation is good once.
    config.save_credentials(file, credentials)
    # Of this one call: tried again after a lost answer, it gets the same token.
    joined = api.join(wanted, secrets.token_hex(16))
    credentials.remember(api.server, joined.token)
    config.save_credentials(file, credentials)
    return joined


def _checked(code: str, name: str | None) -> Join:
    if not code.startswith("cfi_"):
        raise InvalidRequest(
            "That is no code of an invitation; those begin with cfi_.",
            hint="A token is kept with: coldfusion-client login URL",
        )
    try:
        return Join(code=code, name=name)
    except ValueError:
        # Not the validation error's text, which would show the code.
        raise InvalidRequest(
            "The code or the name cannot be one.",
            hint="Copy the code whole; a name has letters, digits, '.', '_' and '-', 100 at most.",
        ) from None
