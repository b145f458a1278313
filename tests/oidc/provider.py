"""
An OpenID Connect provider on 127.0.0.1: authlib's server half, with pages that a person can click.

The protocol is checked by authlib (PKCE, clients and their secrets, redirect URIs, device codes).
What it says of people is signed here, so that tests can let it lie, and `faults` lets it misbehave.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import urlencode

import httpx
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import (
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    DeviceCredentialDict,
)
from flask import Flask, Response, redirect, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

DASHBOARD, PROGRAM, SECRET = "dashboard", "program", "a secret/of the+client's"
METHODS = ["client_secret_basic", "client_secret_post", "none"]
Fault = Callable[[], Response]


class Client(ClientMixin):  # type: ignore[misc]
    """Somebody who lets people sign in."""

    def __init__(self, client_id: str, secret: str | None) -> None:
        self.client_id = client_id
        self.secret = secret

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.endswith("/login/oidc/callback")

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (self.secret is None)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type.endswith("device_code") == (self.client_id == PROGRAM)


@dataclass(eq=False)
class Code(AuthorizationCodeMixin):  # type: ignore[misc]
    """What a code stands for."""

    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Provider:
    """
    The provider.

    Attributes:
        url: its issuer.
        person: the claims of whoever sits before the browser.
        lies: claims in place of true ones; null: left out.
        alg: by which it signs.
        keys: its keys; it signs with the last one.
        faults: what some paths answer instead.
        now: its clock, in seconds since 1970.
        nonces: those that it was sent.
        slow_down: how often it still wants to be asked less often.
        interval: seconds between two questions of a program.
        life: seconds for which a program's code is good.
    """

    url: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    lies: dict[str, Any] = field(default_factory=dict)
    alg: str = "RS256"
    keys: list[RSAKey] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    nonces: list[str] = field(default_factory=list)
    slow_down: int = 0
    interval: int = 1
    life: int = 300
    asked: list[str] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)
    devices: dict[str, DeviceCredentialDict] = field(default_factory=dict)
    decisions: dict[str, bool] = field(default_factory=dict)
    clients: dict[str, Client] = field(
        default_factory=lambda: {
            DASHBOARD: Client(DASHBOARD, SECRET),
            PROGRAM: Client(PROGRAM, None),
        }
    )

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish that one alone."""
        self.keys = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4)})]

    def id_token(self, client_id: str, nonce: str | None = None) -> str:
        """Return an id token about the person."""
        now = int(self.now())
        true = {"iss": self.url, "aud": client_id, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {**true, **self.person, **self.lies}
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.alg, "kid": self.keys[-1].kid}
        return jwt.encode(header, claims, self.keys[-1], algorithms=[self.alg])

    def answer(self, address: str, decision: str = "allow") -> str:
        """Decide as the person in the browser at `address`; return where that is sent next."""
        answer = httpx.post(address, data={"decision": decision}, trust_env=False, timeout=120)
        assert answer.status_code in (302, 303), answer.text
        return str(answer.headers["location"])

    def type_code(self, code: str, decision: str = "allow") -> None:
        """Type a program's code as the person at another device."""
        form = {"user_code": code, "decision": decision}
        answer = httpx.post(f"{self.url}/device", data=form, trust_env=False, timeout=120)
        answer.raise_for_status()

    def description(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "device_authorization_endpoint": f"{self.url}/device_authorization",
            "token_endpoint_auth_methods_supported": METHODS,
            "authorization_response_iss_parameter_supported": True,
        }


class Server(AuthorizationServer):  # type: ignore[misc]
    """authlib's server, which knows whose it is."""

    def __init__(self, provider: Provider, app: Flask) -> None:
        super().__init__()
        self.provider = provider
        self.init_app(app, query_client=provider.clients.get, save_token=lambda *_: None)
        self.register_grant(ByCode, [CodeChallenge(required=True), _signing])
        self.register_grant(ByDevice, [_signing])
        self.register_endpoint(Devices)


class ByCode(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    """A browser comes back with a code."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def save_authorization_code(self, code: str, asked: Any) -> None:
        sent = asked.payload.data
        self.server.provider.nonces.append(sent["nonce"])
        self.server.provider.codes[code] = Code(
            client_id=asked.client.client_id,
            redirect_uri=asked.payload.redirect_uri,
            scope=asked.payload.scope,
            nonce=sent.get("nonce"),
            code_challenge=sent.get("code_challenge"),
            code_challenge_method=sent.get("code_challenge_method"),
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found: Code | None = self.server.provider.codes.get(code)
        return found if found and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        codes = self.server.provider.codes
        for code in [code for code, kept in codes.items() if kept is authorization_code]:
            del codes[code]

    def authenticate_user(self, authorization_code: Code) -> Any:
        return self.server.provider.person


class ByDevice(DeviceCodeGrant):  # type: ignore[misc]
    """A program asks whether a person has typed its code."""

    def query_device_credential(self, device_code: str) -> Any:
        return self.server.provider.devices.get(device_code)

    def query_user_grant(self, user_code: str) -> Any:
        decision = self.server.provider.decisions.get(user_code)
        return None if decision is None else (self.server.provider.person, decision)

    def should_slow_down(self, credential: DeviceCredentialDict) -> bool:
        self.server.provider.slow_down -= 1
        return bool(self.server.provider.slow_down >= 0)


class Devices(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """A program gets a code for a person to type."""

    @property
    def EXPIRES_IN(self) -> int:
        return int(self.server.provider.life)

    @property
    def INTERVAL(self) -> int:
        return int(self.server.provider.interval)

    def get_verification_uri(self) -> str:
        return f"{self.server.provider.url}/device"

    def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
        end = time.time() + data["expires_in"]
        made = DeviceCredentialDict(data, client_id=client_id, scope=scope, expires_at=end)
        self.server.provider.devices[data["device_code"]] = made


def _signing(grant: Any) -> None:
    """Let a grant give out id tokens."""

    def signed(grant: Any, response: Any) -> None:
        _, token, _ = response
        code = getattr(grant.request, "authorization_code", None)
        nonce = None if code is None else code.nonce
        token["id_token"] = grant.server.provider.id_token(grant.request.client.client_id, nonce)

    grant.register_hook("after_create_token_response", signed)


def _page(title: str, action: str, *fields: str) -> str:
    """Return a page with a form, as a person sees it."""
    buttons = "".join(
        f'<button name="decision" value="{word}">{word}</button>' for word in ("allow", "deny")
    )
    return (
        f"<!doctype html><title>{title}</title><h1>{title}</h1>"
        f'<form method="post" action="{escape(action)}">{"".join(fields)}{buttons}</form>'
    )


def application(provider: Provider) -> Flask:
    """Return the provider's pages and endpoints."""
    app = Flask(__name__)
    server = Server(provider, app)

    @app.before_request
    def misbehave() -> Response | None:
        provider.asked.append(request.path)
        fault = provider.faults.get(request.path)
        return None if fault is None else fault()

    def keys() -> dict[str, Any]:
        return {"keys": [{**key.as_dict(private=False), "use": "sig"} for key in provider.keys]}

    app.get("/.well-known/openid-configuration")(provider.description)
    app.get("/keys")(keys)

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    @app.post("/device_authorization")
    def device_authorization() -> Any:
        return server.create_endpoint_response(Devices.ENDPOINT_NAME)

    _add_pages(app, provider, server)
    return app


def _add_pages(app: Flask, provider: Provider, server: Server) -> None:
    """Add what a person sees."""

    @app.get("/authorize")
    def ask() -> str:
        return _page("Sign in at the provider", request.url)

    @app.post("/authorize")
    def authorize() -> Any:
        allowed = request.form["decision"] == "allow"
        try:
            grant = server.get_consent_grant(end_user=provider.person)
        except OAuth2Error as error:
            return Response(f"{error.error}: {error.description}", status=400)
        made = server.create_authorization_response(
            grant_user=provider.person if allowed else None, grant=grant
        )
        issuer = urlencode({"iss": provider.url})
        return redirect(f"{made.headers['location']}&{issuer}", 303)

    @app.get("/device")
    def device() -> str:
        code = escape(request.args.get("user_code", ""))
        return _page("Type the code", "/device", f'<input name="user_code" value="{code}">')

    @app.post("/device")
    def typed() -> str:
        provider.decisions[request.form["user_code"]] = request.form["decision"] == "allow"
        return "<!doctype html><h1>Thank you</h1>"


@contextmanager
def running(**values: Any) -> Iterator[Provider]:
    """Run a provider for a while."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    person = {"sub": "1", "preferred_username": "ann", "groups": ["staff"]}
    provider = Provider(**{"person": person, **values})
    provider.rotate()
    server = make_server("127.0.0.1", 0, application(provider), threaded=True)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def code_in(text: str) -> str | None:
    """Return the code that a program tells a person to type."""
    found = re.search(r"type the code (\S+)", text)
    return None if found is None else found[1]
