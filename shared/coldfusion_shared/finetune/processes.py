"""
Several processes that train one model together, as torchrun and `accelerate launch` start them.

Each is told by its environment which one it is. The first one, of rank 0, does everything that is
seen outside: it writes, sends and prints. The others train with it and end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

# The others wait while the first one downloads and scores, which may take hours.
PATIENCE = timedelta(days=2)


def rank() -> int:
    """Return this process's number; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes, sends and prints."""
    return rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """Be in touch with the other processes inside; alone it does nothing."""
    if count() == 1:
        yield
        return
    # The group's threads must have ended before the interpreter does, or the process may abort
    # then: they end with the group's last reference. Imported later than the group is made, this
    # module keeps one for good, as a default argument; and whatever a training leaves in reference
    # cycles keeps one until these are collected.
    import torch.distributed.nn
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        yield
        return
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    try:
        yield
    finally:
        gc.collect()
        state.destroy_process_group()
        # accelerate would take the group for one that is still there.
        PartialState._reset_state()


def from_first(value: Any) -> Any:
    """Return what the first process gives here; each has to call it, inside `together`."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box)
    return box[0]


def meet() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        import torch

        torch.distributed.barrier()
