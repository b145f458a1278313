"""A line of bases fused by hand, from files, without the Repository's services."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import Update, together_in_update
from coldfusion_shared.fusion.views import (
    MASTER,
    WEIGHTS,
    master_view,
    needs_master,
    state_views,
    weights_view,
)
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import open_update
from coldfusion_shared.weights.tied import fused_tensors

FILE = "model.safetensors"


@dataclass(frozen=True)
class Sent:
    """A contribution: its file, the file of what it was made from, how late it is, its weight."""

    id: str
    raw: bytes
    own: bytes
    staleness: int = 0
    prior: float = 1.0


@dataclass
class HandMade:
    """The newest base of a line: its files by view, and the optimizer's steps."""

    folder: Path
    weights: bytes
    master: bytes | None = None
    state: dict[str, bytes] = field(default_factory=dict)
    steps: int = 0

    def fuse(self, recipe: Recipe, sent: Sequence[Sent]) -> None:
        """Fuse `sent` onto the newest base, which the result becomes."""
        with ExitStack() as stack:
            files: dict[bytes, Checkpoint] = {}

            def opened(raw: bytes) -> Checkpoint:
                # The same weights are the same tensors: sums put what is equal together first.
                if raw not in files:
                    path = self.folder / f"{len(list(self.folder.iterdir()))}.safetensors"
                    path.write_bytes(raw)
                    files[raw] = stack.enter_context(Checkpoint({FILE: FileSource(path)}))
                return files[raw]

            base = opened(self.weights)
            updates = [
                (one, open_update("full", opened(one.raw).sources, opened(one.own).tensors))
                for one in sent
            ]
            spans = base.spans()
            tensors = fused_tensors(base, [together_in_update(u, spans) for _, u in updates])
            plan = make_plan(
                tensors.spans,
                [Update(one.id, u, age=one.staleness, prior=one.prior) for one, u in updates],
                recipe,
            )
            onto = Onto(
                base=base if self.master is None else opened(self.master),
                state={name: opened(raw).tensors for name, raw in self.state.items()},
                steps=self.steps,
                tied=tensors.tied,
            )
            weights = weights_view(spans)
            views = [weights, *([master_view(spans)] if needs_master(weights) else [])]
            views += state_views(plan.kinds.optimizer.state, tensors.body)
            made: dict[str, bytes] = {}
            for piece in fused(plan, onto, views):
                made[piece.view] = made.get(piece.view, b"") + bytes(piece.data)
        self.weights, self.master = made.pop(WEIGHTS), made.pop(MASTER, None)
        self.state, self.steps = made, self.steps + 1 if made else 0
