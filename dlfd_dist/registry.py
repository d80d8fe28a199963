"""Name -> builder tables for data, models and methods; an unknown name lists the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

from .errors import ConfigError

T = TypeVar("T")
Entry = TypeVar("Entry")


def near_match(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


class Registry(Generic[T]):
    """A table filled by decorators: `@methods.register("scrub")`."""

    def __init__(self, setting: str):
        self.setting = setting
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        def add(entry: Entry) -> Entry:
            assert name not in self._entries, f"{self.setting}={name} is registered twice"
            self._entries[name] = cast(T, entry)
            return entry

        return add

    def names(self) -> list[str]:
        return sorted(self._entries)

    def get(self, name: str) -> T:
        if name not in self._entries:
            raise ConfigError(
                f"{self.setting}={name} is not known. Available: {', '.join(self.names())}."
                + near_match(name, self._entries)
            )
        return self._entries[name]
