"""Screening: what a contribution must show before it is fused. One file a check."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from coldfusion_shared.errors import InvalidRequest, UnknownName
from coldfusion_shared.parameters import Parameters, validated
from coldfusion_shared.registry import Registry
from coldfusion_shared.screening.check import Check

checks: Registry[type[Check]] = Registry("screening check", "coldfusion.checks")


def discover() -> Registry[type[Check]]:
    """Return the registry after importing every check."""
    checks.discover(sys.modules[__name__])
    return checks


def check_parameters(screening: Mapping[str, Mapping[str, Any]]) -> dict[str, Parameters]:
    """
    Return the validated parameters of every check, by name; what is not given is the default.

    Args:
        screening: parameters by check, as in a model's policy.

    Raises:
        UnknownName: there is no such check.
        InvalidRequest: a parameter is unknown or out of range.
    """
    registry = discover()
    for name in screening:
        registry[name]
    return {
        name: validated(
            f"the screening check {name!r}", registry[name].parameters_type, screening.get(name, {})
        )
        for name in registry
    }


def known_parameters(
    screening: Mapping[str, Mapping[str, Any]],
) -> dict[str, Mapping[str, Any]]:
    """Return those of `screening` that this installation knows; a newer server may have others."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, given in screening.items():
        try:
            check_parameters({name: given})
        except (UnknownName, InvalidRequest):
            continue
        found[name] = given
    return found
