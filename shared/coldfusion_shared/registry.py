"""Named plug-ins: built-ins are found by walking a package, others by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Generic, TypeVar

from coldfusion_shared.errors import DuplicateName, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping of names to plug-ins, filled by importing the modules that define them."""

    def __init__(self, kind: str, group: str) -> None:
        """
        Create an empty registry.

        Args:
            kind: what one entry is called in messages, e.g. ``"fusion method"``.
            group: the entry-point group of third parties' own, e.g. ``"coldfusion.methods"``.
        """
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}
        self._discovered: set[str] = set()

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its target under `name`."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise DuplicateName(f"There already is a {self.kind} named {name!r}.")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise UnknownName(
                f"No {self.kind} is named {name!r}.", hint=f"Known: {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def discover(self, package: ModuleType) -> None:
        """Import, once, every module of `package` and every entry point of the registry's group."""
        if package.__name__ in self._discovered:
            return
        for module in pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}."):
            importlib.import_module(module.name)
        for entry_point in entry_points(group=self.group):
            entry_point.load()
        self._discovered.add(package.__name__)
