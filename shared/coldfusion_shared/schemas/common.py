"""The names, digests and envelopes that every resource uses."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")

_NAME_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_MODEL_NAME = re.compile(rf"(?=.{{3,96}}$)({_NAME_PART})/({_NAME_PART})")
_PATH_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,99})"
_FILE_PATH = re.compile(rf"(?=.{{1,200}}$){_PATH_PART}(?:/{_PATH_PART}){{0,3}}")


def check_model_name(name: str) -> str:
    """Return `name` if it is ``owner/name`` by the model hub's rules, else raise `ValueError`."""
    if not _MODEL_NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise ValueError(
            "a model is named owner/name, each of letters, digits, '.', '_' and '-', "
            "96 characters at most in all, without '--', '..' or '.git' at the end"
        )
    return name


def check_file_path(path: str) -> str:
    """Return `path` if it is a plain relative path inside a model folder, else raise ValueError."""
    if not _FILE_PATH.fullmatch(path) or ".." in path:
        raise ValueError(
            "a file is named by a plain relative path of letters, digits, '.', '_' and '-'"
        )
    return path


ModelName = Annotated[
    str,
    AfterValidator(check_model_name),
    Field(description="owner/name, by the model hub's rules", examples=["demo/minilm"]),
]
FilePath = Annotated[
    str,
    AfterValidator(check_file_path),
    Field(description="path inside the model folder", examples=["model.safetensors"]),
]
Version = Annotated[
    str,
    StringConstraints(pattern=r"^v(0|[1-9][0-9]{0,8})$"),
    Field(description="a base's version", examples=["v3"]),
]
Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Field(description="SHA-256, 64 lower-case hexadecimal digits"),
]
EncodingName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$"),
    Field(description="the form in which an update travels", examples=["full", "delta-int8"]),
]
Size = Annotated[int, Field(ge=0, le=2**50, description="bytes")]
# PostgreSQL keeps no NUL in a text.
NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)]
# Why a maintainer did something: blanks alone say nothing.
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)
]


class Request(BaseModel):
    """A body that a client sends: what we do not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """A body that the server sends: an older client ignores what a newer server adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Page(Response, Generic[T]):
    """Part of a list, newest first."""

    items: list[T]
    next_cursor: str | None = Field(
        default=None, description="pass it as ?cursor= for the next page; null on the last"
    )


class Problem(Response):
    """An error, as RFC 9457 problem details."""

    type: str = Field(description="a URI reference that names the kind of problem")
    title: str
    status: int
    detail: str = Field(description="what is wrong, in one sentence")
    code: str = Field(description="stable name of the error", examples=["base_outdated"])
    instance: str | None = None
    hint: str | None = Field(default=None, description="what to do next")
    tensors: list[str] = Field(default=[], description="tensors at fault, where tensors are")
    retry_after: int | None = Field(default=None, description="seconds")
    request_id: str | None = None


class ServerInfo(Response):
    """What a client asks first."""

    name: str = "coldfusion"
    version: str
    time: datetime
