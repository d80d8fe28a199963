"""Name -> builder tables for data, models and methods; an unknown name lists the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from . import plugins
from .errors import ConfigError

T = TypeVar("T")
Entry = TypeVar("Entry")


def near_match(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


OTHER_WORDS = {
    "learning_rate": "lr", "batch_size": "global_batch_size", "num_epochs": "epochs",
    "scheduler": "lr_scheduler", "grad_clip": "clip_norm", "arch": "name", "size": "image_size",
}  # fmt: skip
"""What other programs call settings, and what they are called here."""


def near_setting(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for a setting: one of its own section comes first."""
    settings, section, own = list(known), *name.rpartition(".")[::2]
    inside = [s.rpartition(".")[2] for s in settings if s.rpartition(".")[0] == section]
    meant = OTHER_WORDS.get(own)
    close = [meant] if meant in inside else difflib.get_close_matches(own, inside, 1, 0.6)
    if section and close:
        return f" Did you mean '{section}.{close[0]}'?"
    if elsewhere := [s for s in settings if s.rpartition(".")[2] == own]:
        return f" Did you mean '{elsewhere[0]}'?"
    # In a known section the whole name is near to any other of it, by the section alone.
    return "" if section and inside else near_match(name, settings)


registries: dict[str, Registry[Any]] = {}
"""The tables that have been made, by setting."""


def known(setting: str) -> list[str]:
    """Return the names that plugins offer, and those of the table of a setting once it is made."""
    table = registries.get(setting)
    return sorted(plugins.offered(setting)) if table is None else table.names()


class Registry(Generic[T]):
    """A table filled by decorators: `@methods.register("scrub")`; plugins add to it too."""

    def __init__(self, setting: str):
        self.setting = setting
        registries.setdefault(setting, self)
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        def add(entry: Entry) -> Entry:
            if name in self._entries:
                raise ConfigError(
                    f"{self.setting}={name} is registered twice: give the plugin another name."
                )
            self._entries[name] = cast(T, entry)
            return entry

        return add

    def names(self) -> list[str]:
        return sorted({*self._entries, *plugins.offered(self.setting)})

    def get(self, name: str) -> T:
        if name not in self._entries:
            plugins.load(self.setting, name)
        if name not in self._entries:
            raise ConfigError(
                f"{self.setting}={name} is not known. Available: "
                f"{', '.join(self.names()) or 'none'}." + near_match(name, self.names())
            )
        return self._entries[name]
