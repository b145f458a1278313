"""Measurements, always beside a limit or a peer in the same run. Figures go into RESULTS.md."""
