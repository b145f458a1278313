"""The body of a commit: one JSON object a line, as the hub's clients write it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.letters import clean, harmless
from coldfusion_shared.schemas.common import Sha256, Size

Read = TypeVar("Read", bound=BaseModel)

# A folder of more files is no model's.
MAX_LINES = 5000
MAX_SUMMARY = 500
MAX_DESCRIPTION = 10_000
UNTITLED = "A pull request without a title"
Path = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Line(BaseModel):
    """What a line holds; what we do not know of it is ignored, as newer clients may add some."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Header(Line):
    """What the commit says of itself."""

    summary: str = ""
    description: str = ""
    parent: Annotated[str | None, Field(alias="parentCommit", max_length=200)] = None


class SentFile(Line):
    """A file whose bytes were sent before."""

    path: Path
    algorithm: Annotated[Literal["sha256"], Field(alias="algo")] = "sha256"
    sha256: Annotated[Sha256, Field(alias="oid")]
    size: Size | None = None


class _InlineFile(Line):
    path: Path
    content: str
    encoding: Literal["base64", "utf-8"] = "utf-8"


class _Removed(Line):
    path: Path


@dataclass(frozen=True)
class Commit:
    """
    What somebody wants to commit.

    Attributes:
        header: what it says of itself.
        sent: files whose bytes were sent before.
        inline: bytes of files that come with it, by path.
        removed: files and folders that it takes away.
    """

    header: Header
    sent: tuple[SentFile, ...]
    inline: dict[str, bytes]
    removed: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """All files that it adds."""
        return [*(file.path for file in self.sent), *self.inline]


def read_commit(body: bytes) -> Commit:
    """
    Read a commit.

    Raises:
        InvalidRequest: it is none; the line is named.
    """
    header, sent, inline, removed = Header(), dict[str, SentFile](), dict[str, bytes](), list[str]()
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MAX_LINES:
        raise InvalidRequest(f"A commit of {len(lines)} lines; {MAX_LINES} are the most.")
    for number, line in enumerate(lines, 1):
        key, value = _entry(line, number)
        if key == "header":
            header = _read(Header, value, number)
        elif key == "lfsFile":
            file = _read(SentFile, value, number)
            _check_new(file.path, number, sent, inline)
            sent[file.path] = file
        elif key == "file":
            given = _read(_InlineFile, value, number)
            _check_new(given.path, number, sent, inline)
            inline[given.path] = _content(given, number)
        elif key in ("deletedFile", "deletedFolder"):
            removed.append(_read(_Removed, value, number).path)
        else:
            raise InvalidRequest(f"Line {number} of the commit is of an unknown kind.")
    return Commit(_bounded(header), tuple(sent.values()), inline, tuple(removed))


def _entry(line: bytes, number: int) -> tuple[str, Any]:
    try:
        entry = json.loads(line)
        return str(entry["key"]), entry["value"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InvalidRequest(f"Line {number} of the commit is no entry of one.") from None


def _read(kind: type[Read], value: Any, number: int) -> Read:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise InvalidRequest(
            f"Line {number} of the commit cannot be read: {where}: {first['msg'][:200]}."
        ) from None


def _check_new(path: str, number: int, *known: dict[str, Any]) -> None:
    if any(path in files for files in known):
        raise InvalidRequest(f"Line {number} of the commit names a file that it has already.")


def _content(file: _InlineFile, number: int) -> bytes:
    try:
        if file.encoding == "base64":
            return base64.b64decode(file.content, validate=True)
        return file.content.encode()
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"Line {number} of the commit: its content is no base64.") from None


def _bounded(header: Header) -> Header:
    """Return what a database keeps of it."""
    return header.model_copy(
        update={
            "summary": title_of(header.summary),
            "description": words_of(header.description),
        }
    )


def title_of(text: str) -> str:
    """Return what somebody calls a pull request: one line, as databases and terminals take it."""
    return clean(text)[:MAX_SUMMARY] or UNTITLED


def words_of(text: str) -> str:
    """Return what else there is to say of it, with nothing that a terminal acts upon."""
    return harmless(text)[:MAX_DESCRIPTION]
