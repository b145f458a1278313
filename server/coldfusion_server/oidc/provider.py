"""The provider: where its endpoints are, which keys it signs with, what it makes of a code."""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore, Lock
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from pydantic import BaseModel, ValidationError

from coldfusion_server.oidc.fetching import Fetcher
from coldfusion_server.oidc.id_tokens import Claims, Key, verify
from coldfusion_server.oidc.options import OidcOptions, is_safe
from coldfusion_server.oidc.request import Request
from coldfusion_shared.errors import NotFound, ProviderUnavailable, SignInRefused
from coldfusion_shared.schemas.sign_in import SignInOffer

T = TypeVar("T")

log = structlog.get_logger(__name__)

# What the provider says of itself is asked for anew after so many seconds.
KEPT_SECONDS = 3600.0
# Keys change before that. A token with a key that nobody has heard of is asked after no sooner,
# so that made-up ones cannot make us ask all the time.
KEYS_SECONDS = 30.0
# After it did not answer it is not asked for so long: who waited behind need not wait again.
PAUSE_SECONDS = 3.0
# Each takes a thread of the API as long as the provider lets it wait.
MOST_AT_A_TIME = 12
_WELL_KNOWN = "/.well-known/openid-configuration"


class Metadata(BaseModel):
    """What is needed of what a provider says of itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True)
class Keys:
    """Public keys by their id, and when they were asked for, in seconds of a clock."""

    by_id: Mapping[str | None, Key]
    asked: float


class Provider:
    """The provider that the settings name. Safe to use from several threads."""

    def __init__(
        self,
        options: OidcOptions,
        fetcher: Fetcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Ask nothing yet: a provider that is away keeps no server from starting.

        Args:
            options: which one, and who we are there.
            fetcher: asks.
            clock: in seconds.
        """
        self.options = options
        self._fetcher = fetcher or Fetcher()
        self._clock = clock
        self._places = BoundedSemaphore(MOST_AT_A_TIME)
        self._lock = Lock()
        self._metadata: tuple[Metadata, float] | None = None
        self._keys: Keys | None = None
        self._failure: tuple[ProviderUnavailable, float] | None = None

    def address(self, request: Request) -> str:
        """Return where to send a browser; raises `ProviderUnavailable`."""
        with self._place():
            endpoint = self._described().authorization_endpoint
        challenge = urlsafe_b64encode(hashlib.sha256(request.verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self.options.client_id,
            "redirect_uri": request.redirect_uri,
            "scope": self.options.scope,
            "state": request.state,
            "nonce": request.nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def redeem(self, code: str, issuer: str | None, request: Request) -> str:
        """
        Return the id token for which a code stands.

        Args:
            code: with which the browser came back.
            issuer: who sent it back, by its own word; null: it did not say.
            request: the one for which it is the answer.

        Raises:
            SignInRefused: it is good for nothing, or somebody else's.
            ProviderUnavailable: it could not be asked.
        """
        with self._place():
            return self._redeem(code, issuer, request)

    def verify(self, id_token: str, client_id: str, nonce: str | None, now: datetime) -> Claims:
        """Return the claims of an id token, as `id_tokens.verify` does, by the provider's keys."""
        with self._place():
            return verify(
                id_token,
                self._key,
                issuer=self.options.issuer,
                client_id=client_id,
                nonce=nonce,
                now=now,
            )

    @property
    def device_client_id(self) -> str:
        """The id of coldfusion-client; raises `NotFound` where it signs nobody in."""
        if self.options.device_client_id is None:
            raise _no_offer()
        return self.options.device_client_id

    def offer(self) -> SignInOffer:
        """Return how a program signs people in; raises `NotFound`, `ProviderUnavailable`."""
        client_id = self.device_client_id
        with self._place():
            described = self._described()
        if described.device_authorization_endpoint is None:
            raise _no_offer()
        return SignInOffer(
            issuer=self.options.issuer,
            client_id=client_id,
            scope=self.options.scope,
            device_authorization_endpoint=described.device_authorization_endpoint,
            token_endpoint=described.token_endpoint,
        )

    def _redeem(self, code: str, issuer: str | None, request: Request) -> str:
        described = self._described()
        # https://www.rfc-editor.org/rfc/rfc9207: the code would go to whom it is not for.
        if issuer is None and described.authorization_response_iss_parameter_supported:
            raise SignInRefused("The sign-in provider did not say who it is.", hint="Try again.")
        if issuer not in (None, self.options.issuer):
            raise SignInRefused("The answer comes from another provider.", hint="Try again.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.redirect_uri,
            "code_verifier": request.verifier,
        }
        reply = self._fetcher.post(described.token_endpoint, *self._identified(described, form))
        id_token = reply.content.get("id_token")
        if reply.status == 200 and isinstance(id_token, str):
            return id_token
        error = reply.content.get("error")
        if reply.status == 200 or error != "invalid_grant":
            _wrong(f"token endpoint: status {reply.status}, error {error!r:.60}")
        raise SignInRefused("The sign-in has expired, or was used before.", hint="Sign in again.")

    def _identified(
        self, described: Metadata, form: dict[str, str]
    ) -> tuple[dict[str, str], tuple[str, str] | None]:
        """Return a form that says who we are, and what does so in its header, if anything."""
        client_id, secret = self.options.client_id, self.options.client_secret
        if secret is None:
            return {**form, "client_id": client_id}, None
        if "client_secret_post" in described.token_endpoint_auth_methods_supported:
            return {**form, "client_id": client_id, "client_secret": secret}, None
        # The second choice: not all providers undo the quoting that the standard asks for.
        return form, (quote_plus(client_id), quote_plus(secret))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise ProviderUnavailable(
                "Too many people are signing in at this moment.", hint="Try again in a while."
            )
        try:
            yield
        finally:
            self._places.release()

    def _described(self) -> Metadata:
        with self._lock:
            if self._metadata is None or self._clock() - self._metadata[1] > KEPT_SECONDS:
                self._metadata = self._once(self._asked), self._clock()
            return self._metadata[0]

    def _once(self, ask: Callable[[], T]) -> T:
        """Return what `ask` returns; what it raised a moment ago is raised again."""
        if self._failure is not None and self._clock() - self._failure[1] < PAUSE_SECONDS:
            raise ProviderUnavailable(self._failure[0].message, hint=self._failure[0].hint)
        self._failure = None
        try:
            return ask()
        except ProviderUnavailable as failure:
            self._failure = failure, self._clock()
            raise

    def _asked(self) -> Metadata:
        issuer = self.options.issuer
        answer = self._fetcher.get(issuer.rstrip("/") + _WELL_KNOWN)
        try:
            found = Metadata.model_validate(answer)
        except ValidationError as error:
            _wrong(f"its description lacks {error.errors()[0]['loc']!r:.60}")
        if found.issuer != issuer:
            _wrong(f"it calls itself {found.issuer!r:.200}, oidc_issuer is {issuer!r:.200}")
        named = (
            found.authorization_endpoint,
            found.token_endpoint,
            found.jwks_uri,
            found.device_authorization_endpoint,
        )
        for url in named:
            if url is not None and not is_safe(url):
                _wrong(f"an endpoint is not encrypted: {url!r:.200}")
        return found

    def _key(self, identity: str | None) -> Key | None:
        """Return the key of that id; for a new one they are asked for again, now and then."""
        described = self._described()
        with self._lock:
            known = self._keys
            age = None if known is None else self._clock() - known.asked
            found = None if known is None else _chosen(known, identity)
            if age is None or age > (KEPT_SECONDS if found else KEYS_SECONDS):
                known = self._once(lambda: self._asked_keys(described.jwks_uri))
                self._keys, found = known, _chosen(known, identity)
            return found

    def _asked_keys(self, url: str) -> Keys:
        return Keys(_keys(self._fetcher.get(url)), self._clock())


def _chosen(keys: Keys, identity: str | None) -> Key | None:
    if identity is None and len(keys.by_id) == 1:
        return next(iter(keys.by_id.values()))
    return keys.by_id.get(identity)


def _keys(answer: Mapping[str, Any]) -> dict[str | None, Key]:
    """Return the keys of a set by which signatures are checked; others are for something else."""
    entries = answer.get("keys")
    if not isinstance(entries, list):
        _wrong("its keys are none")
    found: dict[str | None, Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(entry)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        # A shared secret that is published is nobody's.
        if isinstance(key, RSAKey | ECKey | OKPKey):
            found[entry.get("kid")] = key
    return found


def _no_offer() -> NotFound:
    return NotFound(
        "This Repository offers no sign-in for programs.",
        hint="Ask its operator for a token, or for an invitation.",
    )


def _wrong(why: str) -> NoReturn:
    """Tell the log what there is to mend, and whoever wants to sign in that it does not work."""
    log.warning("sign-in provider", why=why)
    raise ProviderUnavailable(
        "The sign-in provider and this Repository do not fit together.",
        hint="Tell the operator of this Repository, whose log has the details.",
    )
