"""
Features on disk, so that they are computed once for a base and a data set.

One file for each of these, with the features of every text that was ever asked for: another seed's
training examples are mostly the texts of the seeds before.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_shared.evaluate.whole_file import remove_left, whole_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coldfusion_shared.data.dataset import Split

    Features = npt.NDArray[np.float32]

MOST_BYTES = 2 * 2**30
# Of a text's SHA-256; of so many bytes no two texts share one.
KEY_BYTES = 16


class FeatureCache:
    """A folder of features; what was not used for the longest time is removed first."""

    def __init__(
        self, folder: Path, say: Callable[[str], None], most_bytes: int = MOST_BYTES
    ) -> None:
        """
        Use `folder`, which need not be there.

        Args:
            folder: for nothing else.
            say: told if something cannot be written; the features are there all the same.
            most_bytes: of all files together; the newest is kept in any case.
        """
        self.folder, self.say, self.most_bytes = folder, say, most_bytes
        remove_left(folder)

    def features(
        self,
        name: Sequence[str | int],
        splits: Sequence[Split],
        compute: Callable[[Split], Features],
    ) -> list[Features]:
        """
        Return the features of each split, (n, hidden), float32.

        Args:
            name: all that features of a text depend on, and the data set that the texts are of.
            splits: texts, or pairs of texts, in any order, also several times.
            compute: called at most once, with the texts whose features are not known.
        """
        import numpy as np

        path = self.folder / f"{hashlib.sha256(json.dumps(name).encode()).hexdigest()}.npz"
        keys, values = _read(path)
        place = {key: row for row, key in enumerate(keys)}
        wanted = [_keys(split) for split in splits]
        missing = {
            key: (part, row)
            for part, found in enumerate(wanted)
            for row, key in enumerate(found)
            if key not in place
        }
        if missing:
            computed = compute(_taken(splits, list(missing.values())))
            values = computed if values is None else np.concatenate([values, computed])
            place |= {key: len(place) + row for row, key in enumerate(missing)}
            self._write(path, list(place), values)
        assert values is not None, "a split has examples"
        return [values[[place[key] for key in found]] for found in wanted]

    def _write(self, path: Path, keys: list[bytes], values: Features) -> None:
        import numpy as np

        # A zip file has a checksum of everything in it.
        named = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        try:
            with whole_file(path) as file:
                np.savez(file, keys=named, values=values)
        except OSError as error:
            self.say(
                f"Features cannot be kept in {self.folder} ({error.strerror}). A later run "
                "computes them again."
            )
        with suppress(OSError):
            self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        """Remove what was not used for the longest time, and what killed processes have left."""
        files = sorted((file.stat().st_mtime, file) for file in self.folder.iterdir())
        used = sum(file.stat().st_size for _, file in files)
        for _, file in files:
            if used <= self.most_bytes:
                break
            if file != newest:
                used -= file.stat().st_size
                file.unlink(missing_ok=True)


def _keys(split: Split) -> list[bytes]:
    return [
        hashlib.sha256(json.dumps(texts).encode()).digest()[:KEY_BYTES]
        for texts in split.keys(["text", "text_pair"])
    ]


def _taken(splits: Sequence[Split], places: Sequence[tuple[int, int]]) -> Split:
    """Return the texts at `places`, each a split and a row, as one split."""
    from coldfusion_shared.data.dataset import Split

    roles = [role for role in ("text", "text_pair") if splits[0].get(role) is not None]
    return Split({role: tuple(splits[part][role][row] for part, row in places) for role in roles})


def _read(path: Path) -> tuple[list[bytes], Features | None]:
    """Return keys and features of a file; none if it is not there, or damaged."""
    import numpy as np

    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            named, values = file["keys"], file["values"]
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return [], None
    keys = [row.tobytes() for row in named]
    sound = named.dtype == np.uint8 and values.dtype == np.float32 and len(keys) == len(values)
    return (keys, values) if sound else ([], None)
