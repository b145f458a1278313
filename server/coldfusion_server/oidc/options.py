"""The settings ``oidc_...`` as a whole: all that is needed, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from coldfusion_server.oidc.people import Rules
from coldfusion_server.settings import Settings
from coldfusion_shared.errors import ConfigurationError

HINT = "docs/how-to/oidc.md shows which settings belong together."
_OURSELVES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class OidcOptions:
    """
    How people sign in; the settings tell what each means.

    Attributes:
        issuer: the provider, as it writes it itself.
        client_id: of the dashboard.
        client_secret: null: it is a public client.
        device_client_id: of coldfusion-client; null: it cannot sign people in.
        scope: with spaces between.
        name: what the provider is called.
        rules: who may sign in, under which name and role.
    """

    issuer: str
    client_id: str
    client_secret: str | None
    device_client_id: str | None
    scope: str
    name: str
    rules: Rules


def options_of(settings: Settings) -> OidcOptions | None:
    """Return the options that `settings` give, null where none does; raises ConfigurationError."""
    given = sorted(name for name in settings.model_fields_set if name.startswith("oidc_"))
    if settings.oidc_issuer is None:
        if given:
            raise ConfigurationError(f"{given[0]} is set, and oidc_issuer is not.", hint=HINT)
        return None
    if settings.oidc_client_id is None:
        raise ConfigurationError("oidc_issuer is set, and oidc_client_id is not.", hint=HINT)
    if not is_safe(settings.oidc_issuer) or set("?#") & set(settings.oidc_issuer):
        raise ConfigurationError(
            "oidc_issuer is no address like https://accounts.example.org.",
            hint="It begins with https; http is for localhost alone.",
        )
    if "openid" not in settings.oidc_scopes.split():
        raise ConfigurationError("openid is not among oidc_scopes.", hint=HINT)
    if not settings.oidc_roles and settings.oidc_default_role == "none":
        raise ConfigurationError(
            "Nobody could sign in: oidc_roles is empty, and oidc_default_role is none.", hint=HINT
        )
    secret = settings.oidc_client_secret
    return OidcOptions(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=None if secret is None else secret.get_secret_value(),
        device_client_id=settings.oidc_device_client_id,
        scope=" ".join(settings.oidc_scopes.split()),
        name=settings.oidc_name,
        rules=Rules.of(settings),
    )


def is_safe(url: str) -> bool:
    """Return whether nobody on the way to `url` can read along: https, or this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username or parts.password or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _OURSELVES)
