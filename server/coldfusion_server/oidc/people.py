"""Claims to a person: who it is, what they are called here, what they may do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coldfusion_server.settings import Settings
from coldfusion_shared.schemas.tokens import Role

# Short enough for a number behind it.
_LONGEST_NAME = 80
_NAMELESS = "someone"

Claims = Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """
    Who may sign in, and as what.

    Attributes:
        name_claim: what a newcomer is named after.
        role_claim: what decides the role; dots lead into claims inside others.
        roles: the role by what that claim holds; the first that fits counts.
        default: the role of whom none fits; null: such people may not sign in.
        domains: of verified e-mail addresses, in small letters; empty: any, or none.
    """

    name_claim: str
    role_claim: str
    roles: Mapping[str, Role]
    default: Role | None
    domains: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return those that `settings` give."""
        domains = (one.strip().lstrip("@").lower() for one in settings.oidc_domains.split(","))
        default = settings.oidc_default_role
        return cls(
            name_claim=settings.oidc_name_claim,
            role_claim=settings.oidc_role_claim,
            roles={value: Role(role) for value, role in settings.oidc_roles.items()},
            default=None if default == "none" else Role(default),
            domains=frozenset(domain for domain in domains if domain),
        )


@dataclass(frozen=True)
class Person:
    """
    Somebody whom the provider knows.

    Attributes:
        issuer: the provider; with the subject, for ever the same person.
        subject: the provider's id of the person.
        name: what to call a newcomer, if nobody is called so yet.
        role: null: they may not sign in.
        why_not: in that case, a sentence.
    """

    issuer: str
    subject: str
    name: str
    role: Role | None
    why_not: str = ""


def person_of(claims: Claims, rules: Rules) -> Person:
    """Return whom `claims`, which were verified, are about."""
    role = _role(claims, rules)
    why_not = "" if role else "None of your groups at the sign-in provider may come in here."
    if rules.domains and _domain(claims) not in rules.domains:
        role, why_not = None, "Your e-mail address is not one that may sign in here."
    name = _name(_at(claims, rules.name_claim))
    return Person(claims["iss"], claims["sub"], name, role, why_not)


def _role(claims: Claims, rules: Rules) -> Role | None:
    held = _at(claims, rules.role_claim)
    values = held if isinstance(held, list) else [held]
    texts = {value for value in values if isinstance(value, str)}
    fitting = (role for value, role in rules.roles.items() if value in texts)
    return next(fitting, rules.default)


def _domain(claims: Claims) -> str | None:
    """Return the domain of an e-mail address that the provider has verified."""
    address = claims.get("email")
    # Some write it as a text.
    if not isinstance(address, str) or claims.get("email_verified") not in (True, "true"):
        return None
    return address.rpartition("@")[2].lower()


def _at(claims: Claims, path: str) -> Any:
    """Return the claim of that name, else the one to which its dots lead; null: there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _name(claim: Any) -> str:
    """Return a claim as a contributor can be called: letters, digits, '.', '_' and '-'."""
    text = claim.partition("@")[0] if isinstance(claim, str) else ""
    plain = unicodedata.normalize("NFKD", text[:500]).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[:_LONGEST_NAME].strip(".-") or _NAMELESS
