"""Which tensors a pattern stands for. Names only, no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase


def is_frozen(name: str, patterns: Iterable[str]) -> bool:
    """
    Return whether one of `patterns` stands for the tensor called `name`.

    A pattern is the name of a tensor or of a module, or a part of one between dots, with ``*``,
    ``?`` and ``[0-5]`` as in file names.
    """
    parts = list(parts_of(name))
    return any(fnmatchcase(part, pattern) for pattern in patterns for part in parts)


def parts_of(name: str) -> Iterator[str]:
    """Yield every part of a name between dots: of ``a.b``, a, a.b and b."""
    words = name.split(".")
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            yield ".".join(words[start:stop])
