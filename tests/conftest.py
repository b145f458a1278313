"""What all tests share: how hard hypothesis tries."""

from __future__ import annotations

from hypothesis import settings

# The machines of CI are slow and shared: a deadline would fail for no reason of ours.
settings.register_profile("coldfusion", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("coldfusion")
