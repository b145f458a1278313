"""A look-out while somebody finetunes: is there a newer base by now?"""

from __future__ import annotations

from threading import Event, Thread
from types import TracebackType
from typing import Self

from coldfusion_client.api import Api
from coldfusion_client.reporting import Reporter
from coldfusion_client.rollbacks import told
from coldfusion_shared.errors import ColdFusionError

EVERY_SECONDS = 3.0


class NewerBase:
    """Tells the person, once for each newer base, as long as its context lasts."""

    def __init__(
        self,
        api: Api,
        model: str,
        version: str,
        reporter: Reporter,
        every: float = EVERY_SECONDS,
    ) -> None:
        """Look after `model` every so many seconds; `version` is what is finetuned."""
        self.api, self.model, self.version, self.reporter = api.once(), model, version, reporter
        self.every = every
        self._told = version
        self._stop = Event()
        self._thread = Thread(target=self._run, name="newer-base", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            try:
                self._look()
            except ColdFusionError:
                continue  # the training needs no network; the next look may have one
            except RuntimeError:
                # With the look-out the connection has ended, perhaps under a look.
                if not self._stop.is_set():
                    raise

    def _look(self) -> None:
        model = self.api.model(self.model)
        newest = model.current
        if newest == self._told or self._stop.is_set():
            return
        self._told = newest
        if model.moved is not None and model.moved.kind == "rollback":
            self.reporter.warn(
                f"{told(model.moved, self.model)} You finetune {self.version}. When you have "
                "finished, the Repository tells whether it still takes that; if not, the same "
                "command with --onto latest puts your update onto the newest base without "
                "training again."
            )
            return
        self.reporter.warn(
            f"{newest} was published while you finetune {self.version}. You can stop now "
            f"(Ctrl-C) and begin with {newest}, or finish and give the same command with "
            "--onto latest: it puts your update onto the newest base without training again."
        )
