"""Where in a bucket what lies."""

from __future__ import annotations

OBJECTS = "objects/sha256/"
# What contributors send, and what becomes of it before it is verified.
UPLOADS = "uploads/"
# The service's ids of those uploads, one below the other: where one was given up, the next begins.
IDS = "ids/"
# What a fuse writes before its digest is known.
TEMPORARY = "tmp/"
# The Repository that all of it belongs to.
OWNER = "owner"


def object_key(digest: str) -> str:
    """Return the key of the object with that digest, the same path that a folder has."""
    return f"{OBJECTS}{digest[:2]}/{digest}"
