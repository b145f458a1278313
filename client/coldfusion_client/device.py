"""
Signing in at the Repository's provider of identities, by a device of one's own: RFC 8628.

The person opens the provider's page anywhere and types a short code; the provider then gives us an
id token, for which the Repository gives a token of its own. Whether the provider has signed it the
Repository looks, not we.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from coldfusion_client import config
from coldfusion_client.api import Api
from coldfusion_client.connection import ERROR_BYTES, USER_AGENT, timeout
from coldfusion_shared.errors import ProviderUnavailable, ServerError, SignInRefused
from coldfusion_shared.schemas.sign_in import LONGEST_ID_TOKEN, SignedIn, SignIn, SignInOffer

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# Of RFC 8628: where the provider says nothing, and what each "slow_down" adds.
INTERVAL_SECONDS = 5.0
SLOWER_SECONDS = 5.0
# Nobody waits for longer, whatever a provider says.
LONGEST_INTERVAL = 60.0
LONGEST_SECONDS = 1800.0
_TRY_AGAIN = "Try again in a while; if it stays so, tell the operator of this Repository."


@dataclass(frozen=True)
class Prompt:
    """
    What a person has to do.

    Attributes:
        url: the page to open.
        code: what to type there.
        whole_url: a page that knows the code; null: there is none.
        minutes: for how long.
    """

    url: str
    code: str
    whole_url: str | None
    minutes: float


@dataclass(frozen=True)
class _Waiting:
    """A code that a person may be typing: what to ask with, how often and until when."""

    device_code: str
    interval: float
    seconds: float


class Clock:
    """The time, and waiting."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    sleep: Callable[[float], object] = staticmethod(time.sleep)


def sign_in(
    api: Api,
    show: Callable[[Prompt], None],
    *,
    transport: httpx.BaseTransport | None = None,
    clock: Clock | None = None,
) -> SignedIn:
    """
    Sign a person in at the server of `api`, which becomes the default one.

    Args:
        api: the server, without a token.
        show: is told what the person has to do, once.
        transport: takes the place of the network to the provider, in tests.
        clock: takes the place of time, in tests.

    Raises:
        NotFound: this Repository does not offer it.
        ProviderUnavailable: the provider does not answer, or with nonsense.
        SignInRefused: the person refused, or took too long, or may not come in.
        ConfigurationError: the file of tokens is damaged; nobody was asked for anything.
    """
    file = config.credentials_file()
    credentials = config.load_credentials(file)
    config.save_credentials(file, credentials)
    offer = api.sign_in_offer()
    for url in (offer.device_authorization_endpoint, offer.token_endpoint):
        if config.is_exposed(url) or urlsplit(url).scheme not in ("http", "https"):
            raise ServerError(
                "This Repository names a sign-in provider that is not encrypted; not used.",
                hint="Tell its operator.",
            )
    with httpx.Client(
        transport=transport, timeout=timeout(), headers={"User-Agent": USER_AGENT}
    ) as http:
        id_token = _id_token(http, offer, show, clock or Clock())
    # Of this one call: tried again after a lost answer, it gets the same token.
    signed_in = api.sign_in(SignIn(id_token=id_token), secrets.token_hex(16))
    credentials.remember(api.server, signed_in.token)
    config.save_credentials(file, credentials)
    return signed_in


def _id_token(
    http: httpx.Client, offer: SignInOffer, show: Callable[[Prompt], None], clock: Clock
) -> str:
    form = {"client_id": offer.client_id, "scope": offer.scope}
    status, answer = _post(http, offer.device_authorization_endpoint, form)
    if status != 200:
        raise ProviderUnavailable("The sign-in provider gives out no code.", hint=_TRY_AGAIN)
    prompt, waiting = _understood(answer)
    show(prompt)
    form = {
        "grant_type": GRANT,
        "device_code": waiting.device_code,
        "client_id": offer.client_id,
    }
    end, interval = clock.now() + waiting.seconds, waiting.interval
    while clock.now() + interval < end:
        clock.sleep(interval)
        try:
            status, answer = _post(http, offer.token_endpoint, form)
        except ProviderUnavailable:
            # It may come back while the code is good; asked ever less often, as RFC 8628 has it.
            interval = min(2 * interval, LONGEST_INTERVAL)
            continue
        if status == 200:
            return _given(answer)
        if _refusal(answer) == "slow_down":
            interval = min(interval + SLOWER_SECONDS, LONGEST_INTERVAL)
    raise SignInRefused("Nobody has typed the code in time.", hint="Begin again, with a new one.")


def _refusal(answer: Mapping[str, Any]) -> str:
    """Return why there is no token yet; raises `SignInRefused` where there will be none."""
    error = answer.get("error")
    if error in ("authorization_pending", "slow_down"):
        return str(error)
    if error == "access_denied":
        raise SignInRefused("The sign-in was refused at the provider.", hint="Begin again.")
    if error == "expired_token":
        raise SignInRefused("The code has expired.", hint="Begin again, with a new one.")
    raise SignInRefused("The sign-in provider takes the code no more.", hint=_TRY_AGAIN)


def _understood(answer: Mapping[str, Any]) -> tuple[Prompt, _Waiting]:
    # Some say verification_url, as the first drafts did.
    url = answer.get("verification_uri", answer.get("verification_url"))
    code, device_code = answer.get("user_code"), answer.get("device_code")
    whole = answer.get("verification_uri_complete")
    if not (_is_text(url) and _is_text(code) and _is_text(device_code)):
        raise _nonsense()
    seconds = min(_number(answer.get("expires_in")), LONGEST_SECONDS)
    interval = min(_number(answer.get("interval", INTERVAL_SECONDS)), LONGEST_INTERVAL)
    prompt = Prompt(str(url), str(code), str(whole) if _is_text(whole) else None, seconds / 60)
    return prompt, _Waiting(str(device_code), interval, seconds)


def _given(answer: Mapping[str, Any]) -> str:
    id_token = answer.get("id_token")
    if not isinstance(id_token, str) or not 0 < len(id_token) <= LONGEST_ID_TOKEN:
        raise ProviderUnavailable(
            "The sign-in provider does not say who you are.",
            hint="Tell the operator of this Repository: the scope openid is needed.",
        )
    return id_token


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 2000


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise _nonsense()
    return float(value)


def _post(http: httpx.Client, url: str, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
    """Send a form to the provider; return the answer's status and its JSON object."""
    content = bytearray()
    try:
        # Not followed where it leads elsewhere: the form is for whom the Repository has named.
        with http.stream("POST", url, data=form, headers={"Accept": "application/json"}) as answer:
            for block in answer.iter_bytes():
                content += block
                if len(content) > ERROR_BYTES:
                    raise _nonsense()
    except httpx.HTTPError:
        raise ProviderUnavailable(
            "The sign-in provider does not answer.", hint=_TRY_AGAIN
        ) from None
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _nonsense()
    return answer.status_code, parsed


def _nonsense() -> ProviderUnavailable:
    return ProviderUnavailable(
        "The sign-in provider answers with something that is no answer.", hint=_TRY_AGAIN
    )
