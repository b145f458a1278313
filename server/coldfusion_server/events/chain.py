"""
The chain of the audit log: every entry has the digest of the one before in it, and its own.

Canonical JSON is one line without spaces, keys in the order of their code points, UTF-8, and no
escapes but those that JSON needs. Who changes an entry, takes one out or puts one in breaks the
chain there, unless he writes all that follow anew; that, and a tail that was cut off, shows to
whoever has noted a head, the number and digest of an entry, elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from coldfusion_shared.errors import AuditBroken, InvalidRequest
from coldfusion_shared.schemas.audit import AuditEntry

_HEAD = re.compile(r"([0-9]{1,10}):([0-9a-f]{64})")


@dataclass(frozen=True)
class Head:
    """
    Up to where a log goes.

    Attributes:
        number: of the last entry; 0: there is none.
        sha256: its digest.
    """

    number: int
    sha256: str

    def __str__(self) -> str:
        """Return it as people note it."""
        return f"{self.number}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head that somebody has noted; raises `InvalidRequest`."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise InvalidRequest(
                f"{text[:100]!r} is no head of an audit log.",
                hint="Give it as audit verify has printed it: a number, a colon, 64 digits.",
            )
        return cls(int(match[1]), match[2])


# Before the first entry.
START = Head(0, "0" * 64)


def canonical(value: Any) -> str:
    """Return `value` as canonical JSON; raises `ValueError` for what JSON does not have."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(entry: AuditEntry) -> str:
    """Return the SHA-256 that belongs into the entry."""
    return sha256(canonical(entry.model_dump(exclude={"sha256"})).encode()).hexdigest()


def seal(before: Head, **fields: Any) -> AuditEntry:
    """Return the entry of `fields` that comes behind `before`."""
    number = before.number + 1
    entry = AuditEntry(number=number, previous=before.sha256, sha256="", **fields)
    return entry.model_copy(update={"sha256": digest(entry)})


def check(entries: Iterable[AuditEntry], noted: Head | None = None) -> Head:
    """
    Check a whole log and return its head.

    Args:
        entries: from the first one on.
        noted: a head that it had at some time.

    Raises:
        AuditBroken: an entry was changed, removed or put in; names the first one.
    """
    head = START
    _compare(head, noted)
    for entry in entries:
        _check_next(head, entry)
        head = Head(entry.number, entry.sha256)
        _compare(head, noted)
    if noted is not None and head.number < noted.number:
        raise broken(
            f"The audit log ends with entry {head.number}, and went up to entry {noted.number} "
            "when that was noted: its end was cut off"
        )
    return head


def broken(what: str) -> AuditBroken:
    """Return the error that says what is wrong with the log."""
    return AuditBroken(
        f"{what}.",
        hint="Somebody, or a disk, has changed the database. Keep it as it is, and compare with "
        "the newest backup, or exported log, that audit verify finds sound.",
    )


def _check_next(head: Head, entry: AuditEntry) -> None:
    expected = head.number + 1
    if entry.number > expected:
        raise broken(f"Entry {expected} of the audit log is missing: it was removed")
    if entry.number < expected:
        raise broken(f"Entry {entry.number} of the audit log was put in: it is not in its place")
    if digest(entry) != entry.sha256:
        raise broken(f"Entry {expected} of the audit log was changed: it is not what its digest is")
    if entry.previous != head.sha256:
        others = "it was put in" if not head.number else f"it, or entry {head.number}, was put in"
        raise broken(
            f"Entry {expected} of the audit log does not belong behind the one before: {others} "
            "or changed together with its digest"
        )


def _compare(head: Head, noted: Head | None) -> None:
    if noted is not None and head.number == noted.number and head != noted:
        raise broken(
            f"Entry {head.number} of the audit log is not the one that was noted: it, or one "
            "before it, was changed, and all behind that were written anew"
        )
