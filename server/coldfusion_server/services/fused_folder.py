"""A fuse into a folder of this machine, as a whole model that can be measured; nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coldfusion_server.services import checkout
from coldfusion_server.services.context import Context
from coldfusion_server.services.fuse_inputs import Input
from coldfusion_server.services.fusing import Work, fuse
from coldfusion_server.storage.local import LocalStore
from coldfusion_shared.fusion.views import WEIGHTS


def fuse_into(ctx: Context, given: Input, folder: Path, alive: Callable[[], None]) -> float | None:
    """
    Fuse `given` into the folder ``model`` in `folder`; other files are its base's.

    Returns:
        the step's norm over the norm of what it was added to; null: there is no such number.
    """
    store, model = LocalStore(folder / "store"), folder / "model"
    try:
        (made,) = fuse(ctx, given, Work(alive), store)
        written = {file.path: file for file in made.stored[WEIGHTS]}
        rest = [file for file in given.base.files if file.path not in written]
        checkout.check_out(ctx, rest, model, alive)
        checkout.check_out(replace(ctx, store=store), written.values(), model, alive)
    finally:
        store.close()
    return made.relative_norm
