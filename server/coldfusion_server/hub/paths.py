"""
Addresses of the hub's wire format, taken apart. Pure.

Its clients quote revisions and folders wholly (``refs%2Fpr%2F1``) and leave the slashes of file
names, so that only the raw path can be split. Each piece is unquoted once, and never twice: what
comes out is looked up in a table and never a path of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from starlette.types import Scope

# First words of addresses that are no model owner's: the API's, the dashboard's, the operator's.
OURS = frozenset(
    {
        "",
        "contributions",
        "contributors",
        "decide",
        "health",
        "healthz",
        "login",
        "logout",
        "metrics",
        "models",
        "readyz",
        "static",
        "v1",
    }
)
# First words of what is the hub's, be there an answer or none.
HUBS = frozenset({"api", "cas"})
_PLACE = re.compile(r"\{([a-z]+)\}")


class Template:
    """
    The form of an address, such as ``/api/models/{owner}/{name}/tree/{rev}/{path*}``.

    A place in braces is one word or a part of it; one with a star, at the end, takes all words
    that are left, be it none.
    """

    def __init__(self, text: str) -> None:
        """Take `text` apart."""
        *words, last = text.strip("/").split("/")
        self.text = text
        # One of our own addresses, which clients ask for as if it were the hub's.
        self.is_ours = words[0] in OURS
        self._rest = last[1:-2] if last.endswith("*}") else None
        self._words = [_pattern(word) for word in (words if self._rest else [*words, last])]

    def match(self, words: Sequence[str]) -> dict[str, str] | None:
        """Return what stands in the places, unquoted; null where `words` have another form."""
        count = len(self._words)
        if len(words) < count or (self._rest is None and len(words) > count):
            return None
        found: dict[str, str] = {}
        for pattern, word in zip(self._words, words, strict=False):
            match = pattern.fullmatch(word)
            if match is None:
                return None
            found |= {name: unquote(value) for name, value in match.groupdict().items()}
        if self._rest is not None:
            found[self._rest] = "/".join(unquote(word) for word in words[count:])
        return found


def raw_path(scope: Scope) -> str:
    """Return what was asked for as it was quoted, without the first slash."""
    raw = scope.get("raw_path")
    # Servers of tests may leave it out.
    path: str = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    return path.removeprefix("/")


def words_of(scope: Scope) -> list[str]:
    """Return the words between the slashes of what was asked for, as they were quoted."""
    return raw_path(scope).split("/")


def _pattern(word: str) -> re.Pattern[str]:
    parts = _PLACE.split(word)
    # Every second part is a place's name.
    return re.compile(
        "".join(
            f"(?P<{part}>.+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
        ),
        re.DOTALL,
    )
