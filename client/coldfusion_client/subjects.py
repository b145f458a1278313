"""What can be measured: a server's bases, folders of this machine, and scores of earlier times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.bases import LATEST, model_name, version_name
from coldfusion_shared.errors import InvalidRequest

# What `evaluate --out` has written.
SCORES_SUFFIX = ".json"
# In place of a candidate's id: whatever waits to be measured now.
WAITING = "waiting"


@dataclass(frozen=True)
class BaseName:
    """A base at the server."""

    model: str
    version: str


@dataclass(frozen=True)
class CandidateName:
    """A candidate at the server by its id, or all that wait to be measured."""

    model: str
    identity: str


# A path is that of a model's folder, or of a file of scores.
Subject = BaseName | CandidateName | Path


def is_folder(text: str) -> bool:
    """Return whether `text` is a folder of this machine."""
    try:
        # An empty word would be the current folder.
        return bool(text) and Path(text).expanduser().is_dir()
    # Somebody's home folder who is not here; a name that is too long to be one.
    except (OSError, RuntimeError):
        return False


def is_name(text: str) -> bool:
    """Return whether `text` may name a model."""
    try:
        return bool(model_name(text))
    except InvalidRequest:
        return False


def is_version(text: str) -> bool:
    """Return whether `text` may name a version."""
    try:
        return bool(version_name(text))
    except InvalidRequest:
        return False


def is_local(model: str, compared: tuple[str, ...], *, at_server: bool) -> bool:
    """
    Return whether a folder is meant, and no server.

    Args:
        model: a model's name, or a folder; perhaps both.
        compared: what is compared, if anything; versions are those of the server's model.
        at_server: whether something was said that only a server has.
    """
    if not is_name(model):
        return True
    return is_folder(model) and not (at_server or any(map(is_version, compared)))


def notes(model: str, compared: tuple[str, ...], *, local: bool) -> list[str]:
    """Return what a person should know of names that are folders as well: which was taken."""
    told = []
    if not compared and is_name(model) and is_folder(model):
        if local:
            told.append(
                f"This measures the folder {model} of this machine. Add --version latest to mean "
                f"the server's model; ./{model} always means the folder."
            )
        else:
            told.append(
                f"This measures the server's model {model}. Write ./{model} to mean the folder of "
                "this machine."
            )
    if not local:
        told += [
            f"{text} is the server's base here. Write ./{text} to mean the folder of this machine."
            for text in compared
            if is_version(text) and is_folder(text)
        ]
    return told


def of_folder(folder: str, compared: tuple[str, ...]) -> tuple[Subject, ...]:
    """Return the folder, or what is compared without a server; raises `InvalidRequest`."""
    if not is_folder(folder):
        raise InvalidRequest(
            f"{folder!r:.120} is no folder, and names no model.",
            hint="A model is called owner/name. Known ones: coldfusion-client models",
        )
    if not compared:
        return (_here(folder),)
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
        _here(text)
        if _is_here(text) and not is_version(text)
        else BaseName(name, version_name(text))
        for text in compared
    )


def of_candidate(model: str, identity: str) -> tuple[Subject, ...]:
    """Return a model's candidate, or those that wait; raises `InvalidRequest`."""
    return (CandidateName(_model(model), identity),)


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
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise InvalidRequest(
                f"{text!r:.120} is no path: whose home folder this is, is not known here.",
                hint="Write the whole path.",
            ) from None
    raise InvalidRequest(
        f"{text!r:.120} is neither a folder nor a {SCORES_SUFFIX} file of scores.",
        hint="To compare versions, name their model in place of a folder, such as acme/encoder.",
    )
