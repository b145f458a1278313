"""File formats of data sets, one file each, found by `discover`; named by their extension."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from coldfusion_shared.data.table import Table
from coldfusion_shared.registry import Registry

ReadTable = Callable[[Path], Table]

formats: Registry[ReadTable] = Registry("data format", "coldfusion.formats")


def discover() -> Registry[ReadTable]:
    """Return the registry after importing every format."""
    formats.discover(sys.modules[__name__])
    return formats
