"""Claims to people: what they are called, and what they may do; and settings that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.oidc.options import is_safe, options_of
from coldfusion_server.oidc.people import Rules, person_of
from coldfusion_server.services.context import open_context
from coldfusion_server.services.contributors import check_name
from coldfusion_server.settings import Settings, load_settings
from coldfusion_shared.errors import ConfigurationError
from coldfusion_shared.schemas.tokens import Role

WHO = {"iss": "https://p.example", "sub": "1"}
ENOUGH: dict[str, Any] = {"oidc_issuer": "https://p.example", "oidc_client_id": "us",
          "oidc_default_role": "reader"}  # fmt: skip


def person(claims: dict[str, Any], **settings: Any) -> Any:
    return person_of({**WHO, **claims}, Rules.of(Settings(**settings)))


@pytest.mark.parametrize(
    ("claim", "name"),
    [("ann", "ann"), ("ann@example.org", "ann"), ("Jürgen Müller", "Jurgen-Muller"),
     ("<b>x</b>", "b-x-b"), ("", "someone"), (None, "someone"), (7, "someone"), (["a"], "someone"),
     ("../..", "someone"), ("李", "someone"), (".a.", "a"), ("a\x1b[31m\n", "a-31m"),
     ("x" * 500, "x" * 80), ("@example.org", "someone")],
)  # fmt: skip
def test_any_claim_becomes_a_name_that_can_be(claim: Any, name: str) -> None:
    found = person({"preferred_username": claim}).name
    assert found == name
    check_name(found)


@pytest.mark.parametrize(
    ("claims", "settings", "role"),
    [
        ({}, {}, None),
        ({}, {"oidc_default_role": "reader"}, Role.READER),
        ({"groups": ["a"]}, {"oidc_roles": {"a": "evaluator"}}, Role.EVALUATOR),
        ({"groups": "a"}, {"oidc_roles": {"a": "evaluator"}}, Role.EVALUATOR),
        ({"groups": ["b", "a"]}, {"oidc_roles": {"a": "maintainer", "b": "reader"}},
         Role.MAINTAINER),
        ({"groups": ["x"]}, {"oidc_roles": {"a": "maintainer"}}, None),
        ({"groups": [["a"], {"a": 1}, None, 7]}, {"oidc_roles": {"a": "maintainer"}}, None),
        ({"groups": {"a": True}}, {"oidc_roles": {"a": "maintainer"}}, None),
        ({"realm_access": {"roles": ["a"]}},
         {"oidc_role_claim": "realm_access.roles", "oidc_roles": {"a": "reader"}}, Role.READER),
        ({"https://x.example/roles": ["a"]},
         {"oidc_role_claim": "https://x.example/roles", "oidc_roles": {"a": "reader"}},
         Role.READER),
    ],
)  # fmt: skip
def test_the_first_entry_that_fits_decides(
    claims: dict[str, Any], settings: dict[str, Any], role: Role | None
) -> None:
    found = person(claims, **settings)
    assert found.role == role
    assert bool(found.why_not) == (role is None)


@pytest.mark.parametrize(
    ("claims", "may"),
    [({"email": "a@Good.example", "email_verified": True}, True),
     ({"email": "a@good.example", "email_verified": "true"}, True),
     ({"email": "a@good.example", "email_verified": False}, False),
     ({"email": "a@good.example"}, False), ({}, False), ({"email": 7, "email_verified": 1}, False),
     ({"email": "a@evil.example", "email_verified": True}, False),
     ({"email": "a@good.example.evil.example", "email_verified": True}, False),
     ({"email": "a@good.example@evil.example", "email_verified": True}, False)],
)  # fmt: skip
def test_only_verified_addresses_of_those_domains_may_in(claims: dict[str, Any], may: bool) -> None:
    found = person(claims, oidc_default_role="reader", oidc_domains="x.example, @good.example")
    assert (found.role is not None) is may


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"oidc_client_id": "us"}, "oidc_client_id is set, and oidc_issuer is not"),
        ({"oidc_default_role": "reader"}, "oidc_default_role is set"),
        ({"oidc_issuer": "https://p.example"}, "oidc_client_id is not"),
        ({**ENOUGH, "oidc_issuer": "http://p.example"}, "no address like"),
        ({**ENOUGH, "oidc_issuer": "p.example"}, "no address like"),
        ({**ENOUGH, "oidc_issuer": "https://p.example?x=1"}, "no address like"),
        ({**ENOUGH, "oidc_issuer": "https://a:b@p.example"}, "no address like"),
        ({**ENOUGH, "oidc_scopes": "profile"}, "openid is not among"),
        ({**ENOUGH, "oidc_default_role": "none"}, "Nobody could sign in"),
    ],
)
def test_half_of_the_settings_is_no_start(
    settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        open_context(Settings(data_dir=tmp_path / "data", **settings))
    assert not (tmp_path / "data").exists()


def test_all_of_them_are_a_provider_and_none_is_none(tmp_path: Path) -> None:
    assert options_of(Settings()) is None
    context = open_context(Settings(data_dir=tmp_path, **ENOUGH))
    assert context.provider is not None
    context.close()


def test_roles_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDFUSION_OIDC_ROLES", '{"cn=a,ou=b": "maintainer"}')
    assert load_settings().oidc_roles == {"cn=a,ou=b": "maintainer"}
    for wrong in ("staff", "[]", '{"a": "admin"}'):
        monkeypatch.setenv("COLDFUSION_OIDC_ROLES", wrong)
        with pytest.raises(ConfigurationError, match="oidc_roles"):
            load_settings()


@pytest.mark.parametrize("url", ["https://x.example/a", "http://localhost:1", "http://[::1]:1/"])
def test_https_and_this_machine_are_safe(url: str) -> None:
    assert is_safe(url)


@pytest.mark.parametrize(
    "url", ["http://x.example", "http://localhost.evil.example", "ftp://localhost", "", "https://",
            "https://a b", "//x", "https://x:99999/", "http://127.0.0.1@evil.example/"]
)  # fmt: skip
def test_everything_else_is_not(url: str) -> None:
    assert not is_safe(url)
