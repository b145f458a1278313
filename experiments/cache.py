"""
What an experiment has made, by the content that it was made of.

An entry is a folder that appears whole or not at all, named by a digest of what it depends on: the
digest of the base, that of the data, all settings, the code. So a run that was killed goes on where
it was, and protocols share what they have in common. In it: ``made.json``, what there is to say of
it, and perhaps ``model/``, weights, which go when the cache grows too large and are made again from
the same inputs when somebody asks for them. What one process is making, others wait for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from coldfusion_shared.evaluate.whole_file import whole_file
from coldfusion_shared.fusion.new_folder import new_folder
from experiments.faults import Fault
from experiments.locks import alone

# Raised with every change to the experiments that makes other weights of the same inputs.
REVISION = 1
MADE, MODEL = "made.json", "model"
# Nobody takes what is called so for weights; what a process that was killed has left goes, too.
GOING = ".going-"

Facts = dict[str, Any]
# Fills a folder, and returns what there is to say of it.
Build = Callable[[Path], Facts]
# Called where another process is making what we want.
Waiting = Callable[[], None]


@dataclass(frozen=True)
class Made:
    """An entry: its folder, and what there is to say of it."""

    folder: Path
    facts: Mapping[str, Any]


class Cache:
    """A folder of entries; several processes may use it."""

    def __init__(self, folder: Path, most_bytes: int, code: str = "") -> None:
        """
        Use `folder`, which need not be there.

        Args:
            folder: for nothing else.
            most_bytes: of all weights together.
            code: which code makes the entries; what other code has made is not found.
        """
        self.folder, self.most_bytes, self.code = folder, most_bytes, code

    def key(self, kind: str, inputs: Mapping[str, Any]) -> str:
        """Return the name of what is made of `inputs`, which JSON can say."""
        text = json.dumps([REVISION, self.code, kind, inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, kind: str, inputs: Mapping[str, Any]) -> Made | None:
        """Return the entry of `inputs`; null where there is none."""
        folder = self._folder(kind, inputs)
        try:
            facts = json.loads((folder / MADE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return Made(folder, facts)

    def make(
        self, kind: str, inputs: Mapping[str, Any], build: Build, waiting: Waiting = lambda: None
    ) -> Made:
        """
        Return the entry of `inputs`; `build` makes it where there is none.

        What another process is making is waited for, after a call of `waiting`.
        """
        if found := self.find(kind, inputs):
            return found
        out = self._folder(kind, inputs)
        with alone(_lock_of(out), waiting):
            if found := self.find(kind, inputs):
                return found
            with new_folder(out) as folder:
                facts = build(folder)
                (folder / MADE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        self._make_room(out)
        return Made(out, facts)

    def weights(
        self, kind: str, inputs: Mapping[str, Any], build: Build, waiting: Waiting = lambda: None
    ) -> Path:
        """
        Return the folder of an entry's weights, which are made again where they had to go.

        Raises:
            Fault: what was made now is not what was made then.
        """
        made = self.make(kind, inputs, build, waiting)
        # To look whether there is an entry is no use of its weights.
        with suppress(OSError):
            os.utime(made.folder / MADE)
        model = made.folder / MODEL
        if model.is_dir():
            return model
        with alone(_lock_of(made.folder), waiting):
            # Another process may have been quicker.
            if not model.is_dir():
                _make_again(made, build)
        self._make_room(made.folder)
        return model

    def _folder(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        key = self.key(kind, inputs)
        return self.folder / kind / key[:2] / key

    def _make_room(self, newest: Path) -> None:
        """Remove the weights that were not used for the longest time, until the rest has room."""
        found = []
        for folder in self.folder.glob(f"*/*/[!.]*/{MODEL}"):
            with suppress(OSError):
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                found.append(((folder.parent / MADE).stat().st_mtime, size, folder))
        used = sum(size for _, size, _ in found)
        for _, size, folder in sorted(found):
            if used > self.most_bytes and folder.parent != newest:
                with suppress(OSError):
                    folder.rename(folder.with_name(GOING + uuid4().hex))
                used -= size
        for folder in self.folder.glob(f"*/*/*/{GOING}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _lock_of(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.lock")


def _make_again(made: Made, build: Build) -> None:
    with new_folder(made.folder / MODEL) as partial:
        facts = build(partial)
        if facts["digest"] != made.facts["digest"]:
            raise Fault(
                "Weights had to be made again, and came out otherwise: this machine does not "
                "compute the same twice, as some GPUs, or not the same as the one that made them.",
                hint="Go on with the weights, as they were, in the cache, or on that machine. "
                "Where neither can be had, begin with an empty cache, and give the setting "
                "cache_gb room for all weights.",
            )
        for entry in list((partial / MODEL).iterdir()):
            entry.rename(partial / entry.name)
        (partial / MODEL).rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())
