"""Updates as contributors have sent them, in folders, and the base that several of them make."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.new_folder import new_folder
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import SentUpdate, Update, together_in_update
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import discover, open_update
from coldfusion_shared.weights.layout import SIDE_FILES, SINGLE_FILE
from coldfusion_shared.weights.tied import fused_tensors


@dataclass(frozen=True)
class Sent:
    """An update in a folder, in an encoding."""

    encoding: str
    folder: Path

    def sources(self, stack: ExitStack) -> dict[str, FileSource]:
        """Open its files, by name, until `stack` closes."""
        found = {}
        for file in discover()[self.encoding].files:
            found[file] = FileSource(self.folder / file)
            stack.callback(found[file].close)
        return found

    def opened(self, stack: ExitStack, base: Checkpoint) -> SentUpdate:
        """Open it on the base that it was made from, until `stack` closes."""
        return open_update(self.encoding, self.sources(stack), base.tensors)


def fuse_sent(sent: Mapping[str, Sent], base: Path, out: Path, recipe: Recipe) -> None:
    """
    Write the model folder `out`: `base` and what `recipe` makes of updates, as a Repository fuses.

    Args:
        sent: the updates, all made from `base`, by who made them.
        base: a folder with one file of weights.
        out: it appears whole or not at all.
        recipe: how.

    Raises:
        NonFiniteWeights: an update holds NaN or infinity; whose it is, is named.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(Checkpoint.from_folder(base))
        readers = {who: one.opened(stack, ours) for who, one in sent.items()}
        spans = ours.spans()
        tensors = fused_tensors(ours, [together_in_update(one, spans) for one in readers.values()])
        plan = make_plan(tensors.spans, [Update(*pair) for pair in readers.items()], recipe)
        folder = stack.enter_context(new_folder(out))
        with (folder / SINGLE_FILE).open("wb") as file:
            for piece in fused(plan, Onto(ours, tied=tensors.tied), [weights_view(spans)]):
                file.write(piece.data)
        for side in SIDE_FILES:
            if (base / side).is_file():
                shutil.copyfile(base / side, folder / side)
