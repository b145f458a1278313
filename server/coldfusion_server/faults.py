"""
Named points at which tests end the process, as `kill -9` would.

A point does nothing unless the setting `fault_point` names it, and that setting is refused outside
of tests.
"""

from __future__ import annotations

import os
import signal

from coldfusion_server.settings import Settings


def fault_point(settings: Settings, name: str) -> None:
    """Die here if the settings name this point; no handler and no clean-up runs."""
    if settings.fault_point == name:
        os.kill(os.getpid(), signal.SIGKILL)
