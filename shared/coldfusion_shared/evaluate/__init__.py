"""Measuring a base: how much a simple reader can get out of its frozen body."""

from coldfusion_shared.evaluate.probe import ProbeResult, probe

__all__ = ["ProbeResult", "probe"]
