"""How the work below the command line tells a person what it does: an interface, and silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "steps"]
# Told the steps that are done, all of them, and a word on how it goes.
Steps = Callable[[float, int, str], None]


class Bar(Protocol):
    """The progress of one long thing."""

    def advance(self, amount: float, note: str = "") -> None:
        """
        Move on; called from any thread.

        Args:
            amount: how far; a step may be done in parts. Negative where something has to be done
                again.
            note: a word on how it goes, such as the training loss.
        """


class Reporter(Protocol):
    """Where sentences and progress go."""

    def say(self, text: str) -> None:
        """Tell what happens."""

    def warn(self, text: str) -> None:
        """Tell what the person may want to act on."""

    def alert(self, text: str) -> None:
        """Tell what the person has to know, also who wants to hear next to nothing."""

    def bar(self, label: str, total: int, unit: Unit) -> AbstractContextManager[Bar]:
        """Show how far a long thing is, until the context ends."""


class Silent:
    """A reporter and a bar that keep everything to themselves."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def warn(self, text: str) -> None:
        """Do nothing."""

    def alert(self, text: str) -> None:
        """Warn."""
        self.warn(text)

    @contextmanager
    def bar(self, label: str, total: int, unit: Unit) -> Iterator[Bar]:
        """Yield a bar that is not shown."""
        yield self

    def advance(self, amount: float, note: str = "") -> None:
        """Do nothing."""


@contextmanager
def steps_shown(reporter: Reporter, label: str) -> Iterator[Steps]:
    """Yield what work in steps calls; the bar begins with the first call, which knows the total."""
    with ExitStack() as stack:
        seen = 0.0
        bar: Bar | None = None

        def progress(done: float, total: int, note: str) -> None:
            nonlocal seen, bar
            if bar is None:
                bar = stack.enter_context(reporter.bar(label, total, "steps"))
            bar.advance(done - seen, note)
            seen = done

        yield progress
