"""What can be measured: a server's bases, folders of this machine, and scores of earlier times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.bases import LATEST, model_name, version_name
from coldfusion_shared.errors import InvalidRequest

# What `evaluate --out` has written.
SCORES_SUFFIX = ".json"


@dataclass(frozen=True)
class BaseName:
    """A base at the server."""

    model: str
    version: str


# A path is that of a model's folder, or of a file of scores.
Subject = BaseName | Path


def is_folder(text: str) -> bool:
    """Return whether `text` is a folder of this machine."""
    return Path(text).expanduser().is_dir()


def is_name(text: str) -> bool:
    """Return whether `text` may name a model."""
    try:
        return bool(model_name(text))
    except InvalidRequest:
        return False


def of_folder(folder: str, compared: tuple[str, ...]) -> tuple[Subject, ...]:
    """Return the folder, or what is compared without a server; raises `InvalidRequest`."""
    if not is_folder(folder):
        raise InvalidRequest(
            f"{folder!r:.120} is no folder, and names no model.",
            hint="A model is called owner/name. Known ones: coldfusion-client models",
        )
    if not compared:
        return (Path(folder).expanduser(),)
    return tuple(_here(text) for text in compared)


def of_model(model: str, version: str | None, compared: tuple[str, ...]) -> tuple[Subject, ...]:
    """
    Return a model's base, or what is compared: versions, folders, files of scores.

    Raises:
        InvalidRequest: there is no model of such a name, or no such version.
    """
    name = _model(model)
    if not compared:
        return (BaseName(name, version_name(version or LATEST)),)
    return tuple(
        _here(text) if _is_here(text) else BaseName(name, version_name(text)) for text in compared
    )


def _model(text: str) -> str:
    try:
        return model_name(text)
    except InvalidRequest:
        if not is_folder(text):
            raise
        raise InvalidRequest(
            f"{text} is a folder: it has no versions, and its scores cannot be posted.",
            hint="Leave --version and --post out, or name a model, such as acme/encoder.",
        ) from None


def _is_here(text: str) -> bool:
    return is_folder(text) or Path(text).suffix == SCORES_SUFFIX


def _here(text: str) -> Path:
    if _is_here(text):
        return Path(text).expanduser()
    raise InvalidRequest(
        f"{text!r:.120} is neither a folder nor a {SCORES_SUFFIX} file of scores.",
        hint="To compare versions, name their model in place of a folder, such as acme/encoder.",
    )
