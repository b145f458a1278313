"""The demo: a whole community on one machine, with the real programs."""
