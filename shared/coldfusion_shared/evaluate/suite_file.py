"""The file that describes a suite, as YAML: read, and pinned to the data that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coldfusion_shared.errors import BadSuite
from coldfusion_shared.evaluate.whole_file import whole_file
from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.schemas.common import Sha256
from coldfusion_shared.schemas.evaluations import MOST_DATASETS, SUITE_NAME, DatasetName

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
# What settings of few-shot trainings begin with where a suite lists all settings together.
FEW_SHOT = "few_shot_"


# The key `<<`, by which a mapping takes over what another one has.
_MERGE = "tag:yaml.org,2002:merge"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """One data set."""

    data: Annotated[str, Field(min_length=1)] = Field(
        description="path, from the suite file's folder on; or the name of a Hugging Face data set"
    )
    name: DatasetName | None = Field(default=None, description="by default the data's own")
    task: str | None = Field(default=None, description="by default the first that fits the data")
    metric: str | None = Field(default=None, description="by default the task's")
    columns: dict[str, str] = Field(default={}, description="columns by role, as label: stars")
    seen: bool | None = Field(
        default=None, description="whether contributors may have trained on it"
    )
    digest: Sha256 | None = Field(default=None, description="of the data; others are refused")


class Limits(_Part):
    """How many examples of a split are used at most."""

    train: Annotated[int, Field(ge=2)] = 1000
    validation: Annotated[int, Field(ge=1)] = 300
    test: Annotated[int, Field(ge=1)] = 500


class TrainingSettings(_Part):
    """What may differ from the usual settings of a finetuning."""

    epochs: float | None = None
    lr: float | None = None
    batch_size: int | None = None
    max_steps: int | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        try:
            FinetuneSettings(**self.given())
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
        return self

    def given(self) -> dict[str, Any]:
        """Return those that the file says."""
        return {name: value for name, value in self if value is not None}


class SuiteFile(_Part):
    """All that a suite file can say."""

    name: Annotated[str, Field(pattern=SUITE_NAME)]
    datasets: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=MOST_DATASETS)]
    limits: Limits = Limits()
    max_length: Annotated[int, Field(ge=4, le=131_072)] = 128
    seed: Seed = 13
    few_shot: Annotated[int, Field(ge=2)] = 100
    training: TrainingSettings = TrainingSettings()
    few_shot_training: TrainingSettings = TrainingSettings()

    def settings(self) -> dict[str, Any]:
        """Return what differs from the usual settings, of both protocols that finetune."""
        few = {f"{FEW_SHOT}{name}": value for name, value in self.few_shot_training.given().items()}
        return {**self.training.given(), **few}


def read_suite_file(path: Path) -> SuiteFile:
    """Read the file at `path`; raises `BadSuite` with the place of the first thing wrong in it."""
    return _parsed(path, _text(path))


def write_digests(path: Path, digests: Sequence[str]) -> None:
    """
    Write each data set's digest into the file at `path`; all else in it stays as it is.

    Raises:
        BadSuite: it cannot be written, or is written in a way that this does not know.
    """
    text = _text(path)
    wanted = _parsed(path, text)
    entries = (
        entry.model_copy(update={"digest": digest})
        for entry, digest in zip(wanted.datasets, digests, strict=True)
    )
    wanted = wanted.model_copy(update={"datasets": tuple(entries)})
    pinned = _pinned(text, digests)
    try:
        known = pinned is not None and _parsed(path, pinned) == wanted
    except BadSuite:
        known = False
    if pinned is None or not known:
        raise BadSuite(
            f"{path}: the digests cannot be written into a file of this form.",
            hint="Give each data set lines of its own, without aliases, or write in by hand: "
            + ", ".join(f"digest: {digest}" for digest in digests[:1])
            + " for the first, and so on.",
        )
    _replace(path, pinned)


def place_of(file: SuiteFile, index: int) -> str:
    """Return what messages call the data set at `index`."""
    return f"data set {index + 1} ({file.datasets[index].data})"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSuite(f"{path} is no UTF-8 text.", hint="Save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadSuite(
            f"{path} cannot be read: {reason}.", hint="Give the path of a suite file, in YAML."
        ) from None


def _parsed(path: Path, text: str) -> SuiteFile:
    try:
        loaded = yaml.safe_load(text)
        twice = _twice(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = error.problem or error.context or "this is no YAML"
        raise BadSuite(f"{path}{line}: {reason}.", hint="Correct the YAML there.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSuite(f"{path} is no YAML: {reason}.", hint="Correct it.") from None
    if twice is not None:
        raise BadSuite(
            f"{path}, line {twice.start_mark.line + 1}: {twice.value!r:.60} is given twice.",
            hint="Give it once.",
        )
    if not isinstance(loaded, dict):
        raise BadSuite(
            f"{path} is no suite: it must give at least `name` and `datasets`.",
            hint="It should look like: {name: my-suite, datasets: [{data: ../data/reviews}]}",
        )
    try:
        return SuiteFile.model_validate(loaded)
    except ValidationError as error:
        raise _invalid(path, loaded, error) from None


def _twice(root: Any) -> Any:
    """Return the first key of a YAML tree that its mapping has already; null if there is none."""
    pending, known = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in known or not isinstance(node, yaml.CollectionNode):
            continue
        # An alias is the very node that it stands for.
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += reversed(node.value)
            continue
        keys = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in keys:
                    return key
                keys.add(key.value)
            pending.append(value)
    return None


def _invalid(path: Path, loaded: Mapping[Any, Any], error: ValidationError) -> BadSuite:
    first = error.errors()[0]
    known = {"missing": "it is missing", "extra_forbidden": "nothing of that name is known"}
    reason = known.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    hint = "Correct it."
    if first["type"] == "extra_forbidden":
        hint = f"Known there: {', '.join(_known_beside(first['loc']))}."
    return BadSuite(f"{path}: {_place(loaded, first['loc'])}: {reason}.", hint=hint)


def _known_beside(loc: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "datasets": Entry,
        "limits": Limits,
        "training": TrainingSettings,
        "few_shot_training": TrainingSettings,
    }
    return list((models[str(loc[0])] if len(loc) > 1 else SuiteFile).model_fields)


def _place(loaded: Mapping[Any, Any], loc: tuple[int | str, ...]) -> str:
    """Say where in the document something is: the second data set, its metric."""
    parts = [str(part) for part in loc]
    if loc[:1] == ("datasets",) and len(loc) > 1 and isinstance(loc[1], int):
        entry = loaded["datasets"][loc[1]]
        data = entry.get("data") if isinstance(entry, dict) else None
        named = f" ({data})" if isinstance(data, str) else ""
        parts = [f"data set {loc[1] + 1}{named}", *parts[2:]]
    return ", ".join(parts) or "the document"


def _pinned(text: str, digests: Sequence[str]) -> str | None:
    """
    Return the YAML `text` with a digest for each data set, in the order of the text.

    null: the data sets come from another part of the file, or are no plain mappings.
    """
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    listed = [value for key, value in root.value if key.value == "datasets"]
    if not listed or not all(map(_is_plain, listed[0].value)):
        return None
    edits = [
        _edit(text, item, digest) for item, digest in zip(listed[0].value, digests, strict=True)
    ]
    # From the end, so that the places before stay where they are.
    for start, stop, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[stop:]
    return text


def _is_plain(item: Any) -> bool:
    """Return whether `item` is a mapping all of whose keys are words."""
    return isinstance(item, yaml.MappingNode) and all(
        isinstance(key, yaml.ScalarNode) for key, _ in item.value
    )


def _edit(text: str, item: Any, digest: str) -> tuple[int, int, str]:
    """Return which stretch of the text to replace, and by what."""
    values = {key.value: value for key, value in item.value}
    if "data" not in values:
        # It comes from another part of the file.
        return 0, 0, ""
    if "digest" in values:
        start, stop = (
            mark.index for mark in (values["digest"].start_mark, values["digest"].end_mark)
        )
        # A key may stand there with nothing after its colon.
        return start, stop, digest if text[start - 1].isspace() else f" {digest}"
    if item.flow_style:
        end = values["data"].end_mark.index
        return end, end, f", digest: {digest}"
    # After the line of the data, as far to the right as its key.
    ending = "\r\n" if "\r\n" in text else "\n"
    new = " " * item.start_mark.column + f"digest: {digest}"
    end = text.find("\n", values["data"].end_mark.index)
    return (len(text),) * 2 + (ending + new,) if end < 0 else (end + 1,) * 2 + (new + ending,)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, with the permissions that it has."""
    path = path.resolve()
    try:
        mode = path.stat().st_mode
        with whole_file(path) as file:
            file.write(text.encode())
        path.chmod(mode)
    except OSError as error:
        raise BadSuite(
            f"{path} cannot be written: {error.strerror}.",
            hint="Check your permission and the room on the disk.",
        ) from None


def as_yaml(sentence: str) -> str:
    """Return a sentence about a command line in the words of a suite file."""
    sentence = re.sub(r"--column (\w+)=(\w+)", r"columns: {\1: \2}", sentence)
    return re.sub(r"--task(?: ([\w-]+))?", lambda m: f"task: {m[1]}" if m[1] else "task", sentence)
