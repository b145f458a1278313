"""From the options of `fuse` to what the engine is asked for."""

from __future__ import annotations

import math
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coldfusion_server.cli.pretrained import fetched
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.fusion.folders import Contribution
from coldfusion_shared.fusion.mergekit import DTYPES, MergekitMerge, read_mergekit
from coldfusion_shared.schemas.recipes import Recipe

MAX_AGE = 1_000_000

Named = Mapping[str, dict[str, Any]]


def dtype_code(name: str | None) -> str | None:
    """Return what safetensors calls the dtype `name`."""
    if name is None:
        return None
    if name not in DTYPES:
        raise InvalidRequest(f"--dtype {name!r} is none of {', '.join(DTYPES)}.")
    return DTYPES[name]


def wanted(
    mergekit: Path | None,
    base: str | None,
    models: Sequence[str] | None,
    recipe: Mapping[str, Any],
    named: Named,
    *,
    heads: bool = False,
) -> MergekitMerge:
    """Return base, models and recipe: from the options, or from a YAML file alone."""
    given = {name: value for name, value in recipe.items() if value not in (None, {})}
    if mergekit is None:
        if base is None or not models:
            raise InvalidRequest(
                "Give the base and what was finetuned from it.",
                hint="coldfusion-server fuse --base DIR --out DIR CONTRIBUTION_DIR...",
            )
        return MergekitMerge(base, [(model, 1.0) for model in models], _recipe(given), None)
    if base or models or given or heads or any(named.values()):
        raise InvalidRequest(
            "With --mergekit, base, models, weights and method come from the file.",
            hint="Leave those options out, or --mergekit.",
        )
    return read_mergekit(mergekit)


def _recipe(values: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InvalidRequest(f"{option}: {first['msg']}.") from None


def folder(stack: ExitStack, source: str) -> Path:
    """Return the folder `source`, or that of the hub's model of this id until `stack` closes."""
    path, _ = stack.enter_context(fetched(source))
    return path


def contributions(
    stack: ExitStack, models: Sequence[tuple[str, float]], named: Named
) -> list[Contribution]:
    """
    Return the contributions, called by the last part of their paths or, if need be, by more of it.

    Args:
        stack: keeps what was downloaded.
        models: folder or id, and weight.
        named: what the options say about single contributions, by option and name.
    """
    sources = [source for source, _ in models]
    names = _names(sources)
    for option, values in named.items():
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise InvalidRequest(
                f"{option}: no contribution is called {unknown[0]!r}.",
                hint="They are called: " + ", ".join(names) + ".",
            )
    bases = named["--made-from"]
    return [
        Contribution(
            name=name,
            folder=folder(stack, source),
            made_from=folder(stack, bases[name]) if name in bases else None,
            prior=_number("--weight", named["--weight"].get(name, weight)),
            age=_count("--age", named["--age"].get(name, 0)),
        )
        for name, (source, weight) in zip(names, models, strict=True)
    ]


def _names(sources: Sequence[str]) -> list[str]:
    """Return the shortest endings of the paths that tell them apart."""
    for source in sources:
        if not source.isprintable() or any("\ud800" <= letter <= "\udfff" for letter in source):
            raise InvalidRequest(f"{source!a} cannot be a contribution's name; rename the folder.")
    parts = [Path(source).parts or (source,) for source in sources]
    if len({_place(source) for source in sources}) < len(parts):
        raise InvalidRequest("One contribution is given twice.")
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def _place(source: str) -> str:
    """Return the folder without detours, or the hub's id."""
    folder = Path(source)
    with suppress(RuntimeError):  # Nobody has that name: then it is no folder either.
        folder = folder.expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def _number(option: str, value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidRequest(f"{option}: {value!r} is no number.") from None


def _count(option: str, value: str | int) -> int:
    try:
        count = int(value)
    except ValueError:
        raise InvalidRequest(f"{option}: {value!r} is no whole number.") from None
    if not 0 <= count <= MAX_AGE:
        raise InvalidRequest(f"{option}: {value!r:.40} is not between 0 and {MAX_AGE}.")
    return count


def scorer(command: str) -> Callable[[Path], float]:
    """
    Return what runs `command` on a model's folder and reads the score from its last line.

    Raises:
        InvalidRequest: the command cannot be run, fails, or prints no number.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InvalidRequest(f"--score cannot be read as a command: {error}.") from None
    if not any("{model}" in word for word in words):
        words.append("{model}")

    def score(model: Path) -> float:
        try:
            done = subprocess.run(
                [word.replace("{model}", str(model)) for word in words],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = float(done.stdout.strip().splitlines()[-1])
        except (OSError, subprocess.CalledProcessError) as error:
            raise InvalidRequest(f"The command of --score failed: {error}.") from None
        except (ValueError, IndexError):
            raise InvalidRequest("The command of --score printed no number.") from None
        if not math.isfinite(found):
            raise InvalidRequest(f"The command of --score printed {found}, which is no score.")
        return found

    return score
