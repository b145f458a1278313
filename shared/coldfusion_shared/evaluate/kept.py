"""Measurements on disk, so that a run that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coldfusion_shared.evaluate.protocols import Measured
from coldfusion_shared.evaluate.whole_file import remove_left, whole_file


class KeptMeasurements:
    """A folder with a small file for each measurement."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """
        Use `folder`, which need not be there.

        Args:
            folder: for nothing else.
            say: told once if something cannot be written; the evaluation goes on.
        """
        self.folder, self.say = folder, say
        self.failed = False
        remove_left(folder)

    def get(self, *key: Any) -> Measured | None:
        """Return the measurement that depends on `key`; null if there is none, or it is damaged."""
        try:
            digest, _, text = self._path(key).read_bytes().partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != digest:
                return None
            return _adapter().validate_json(text)
        except (OSError, ValidationError):
            return None

    def put(self, measured: Measured, *key: Any) -> None:
        """Keep a measurement; `key`: all that it depends on, as JSON can say it."""
        text = _adapter().dump_json(measured)
        try:
            with whole_file(self._path(key)) as file:
                file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        except OSError as error:
            if not self.failed:
                self.say(
                    f"Scores cannot be kept in {self.folder} ({error.strerror}). The evaluation "
                    "goes on, but if it is interrupted it has to begin again."
                )
            self.failed = True

    def _path(self, key: tuple[Any, ...]) -> Path:
        named = json.dumps(key, sort_keys=True).encode()
        return self.folder / f"{hashlib.sha256(named).hexdigest()}.json"


def is_finite(measured: Measured) -> bool:
    """Return whether score and guesses are numbers that can be reckoned with."""
    return all(map(math.isfinite, (measured.score, *(measured.guesses or ()))))


@lru_cache
def _adapter() -> TypeAdapter[Measured]:
    return TypeAdapter(Measured)
