"""What a browser takes to the provider and back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """
    One way of one browser.

    Attributes:
        redirect_uri: where it comes back to.
        state: comes back with it.
        nonce: comes back in the id token.
        verifier: proves that who redeems the code is who has sent the browser (PKCE).
    """

    redirect_uri: str
    state: str
    nonce: str
    verifier: str
