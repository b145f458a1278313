"""Screening: what a contribution must show before it is fused. One file a check."""

from __future__ import annotations

import sys

from coldfusion_shared.registry import Registry
from coldfusion_shared.screening.check import Check

checks: Registry[type[Check]] = Registry("screening check", "coldfusion.checks")


def discover() -> Registry[type[Check]]:
    """Return the registry after importing every check."""
    checks.discover(sys.modules[__name__])
    return checks
