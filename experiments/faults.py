"""What comes to nothing by its numbers, which is a result, and what ends a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coldfusion_shared.errors import ColdFusionError, InvalidRequest
from coldfusion_shared.finetune.failures import out_of_memory

# Kinds of jobs that refuse what they are given for what it is.
FUSING = ("fuse", "soup")
# What torch says once a GPU has failed; every later job would fail for it, too.
BROKEN = "CUDA error"


# Neither is in the product's tree of errors, all of which travel over its wire.
class Fault(Exception):
    """What no run can go on from: the machine's doing, or that of settings."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Keep what is wrong, and what to do about it."""
        super().__init__(message)
        self.message, self.hint = message, hint


class Unfit(Exception):
    """A method cannot fuse what there is, such as fewer models than it needs."""

    def __init__(self, message: str) -> None:
        """Keep the reason."""
        super().__init__(message)
        self.message = message


@contextmanager
def told_apart(kind: str, what: str) -> Iterator[None]:
    """
    Tell what a job comes to by its numbers from what the machine, or we, got wrong.

    Args:
        kind: of the job.
        what: it makes, for people.

    Raises:
        Unfit: it fuses, and cannot fuse these.
        Fault: the system, an allocator or a GPU failed, or no such job can be done.
    """
    try:
        yield
    except InvalidRequest as error:
        if kind in FUSING and not _by_machine(error):
            raise Unfit(error.message) from error
        raise _fault(kind, what, error) from error
    except ColdFusionError as error:
        if _by_machine(error):
            raise _fault(kind, what, error) from error
        raise
    except OSError as error:
        raise Fault(f"{kind} {what}: {error}") from error


def _fault(kind: str, what: str, error: ColdFusionError) -> Fault:
    return Fault(f"{kind} {what}: {error.message}", error.hint)


def _by_machine(error: ColdFusionError) -> bool:
    """Return whether an error is our name for something that the machine has said."""
    said = error.__cause__ or error.__context__
    if said is None:
        return False
    return isinstance(said, OSError) or out_of_memory(said) or BROKEN in str(said)
