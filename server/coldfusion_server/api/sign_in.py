"""Signing in by the Repository's provider of identities, for programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from coldfusion_server.api.dependencies import Address, Ctx, Guessing
from coldfusion_server.services import sign_in
from coldfusion_shared.schemas.sign_in import SignedIn, SignIn, SignInOffer

router = APIRouter(prefix="/v1/sign-in", tags=["sign-in"])


@router.get("")
def offer(ctx: Ctx) -> SignInOffer:
    """Tell where a program signs a person in by the device grant (RFC 8628), and as what."""
    return sign_in.offer(ctx)


@router.post("")
def exchange(
    ctx: Ctx,
    guesses: Guessing,
    address: Address,
    wanted: SignIn,
    idempotency_key: Annotated[
        str,
        Header(min_length=16, max_length=128, examples=["b1946ac92492d2347c6235b4d2611184"]),
    ],
) -> SignedIn:
    """
    Make a token for whom an id token is about, shown this once. Needs none.

    The same id token with the same key again gives the same token.
    """
    return guesses.sign_in(ctx, address, wanted, idempotency_key)
