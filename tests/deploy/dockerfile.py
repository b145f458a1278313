"""Reads server/Dockerfile by a parser of Dockerfiles, and .dockerignore."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path, PurePosixPath

from tests.deploy.compose import ROOT

FILE = ROOT / "server" / "Dockerfile"


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    image: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        """Return what stands behind each such instruction."""
        return [value for name, value in self.instructions if name == instruction]

    def words(self, instruction: str) -> list[str]:
        """Return the JSON list behind the only such instruction."""
        (value,) = self.values(instruction)
        words = json.loads(value)
        assert isinstance(words, list)
        return [str(word) for word in words]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = [pair for value in self.values("ENV") for pair in shlex.split(value)]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}

    @property
    def sources(self) -> list[str]:
        """What COPY takes from the checkout, and not from another stage."""
        found = []
        for value in self.values("COPY"):
            words = value.split()
            if not words[0].startswith("--from="):
                found += [word for word in words[:-1] if not word.startswith("--")]
        return found


def stages(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    from dockerfile_parse import DockerfileParser

    parser = DockerfileParser(fileobj=BytesIO(text.encode()))
    found: list[Stage] = []
    for item in parser.structure:
        name, value = item["instruction"], item["value"]
        if name == "FROM":
            image, _, alias = value.partition(" AS ")
            found.append(Stage(image, alias or None))
        elif name != "COMMENT" and found:
            found[-1].instructions.append((name, value))
    return found


def ignored(path: str, ignore_file: Path = ROOT / ".dockerignore") -> bool:
    """Return whether the build does not see `path`: the last pattern that fits it decides."""
    decided = False
    for line in ignore_file.read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        kept = pattern.startswith("!")
        if _fits(path, pattern.lstrip("!")):
            decided = not kept
    return decided


def _fits(path: str, pattern: str) -> bool:
    """A pattern fits a path, and all that lies in a folder that it fits."""
    names = PurePosixPath(path).parts
    folders = ["/".join(names[: count + 1]) for count in range(len(names))]
    if pattern.startswith("**/"):
        return any(fnmatchcase(name, pattern[3:]) for name in names)
    return any(_same_depth(folder, pattern) for folder in folders)


def _same_depth(path: str, pattern: str) -> bool:
    ours, theirs = path.split("/"), pattern.split("/")
    return len(ours) == len(theirs) and all(map(fnmatchcase, ours, theirs))


def is_pinned(image: str) -> bool:
    """Return whether an image's name says which version it is."""
    tag = re.search(r":([^:/@]+)(@sha256:[0-9a-f]{64})?$", image)
    return tag is not None and bool(re.search(r"\d+[.-]\d+", tag[1]))
