"""The words of a command line, `key=value`, as text; Hydra reads them in dlfd_dist.compose."""

from __future__ import annotations

from collections.abc import Sequence


def key_of(word: str) -> str:
    """Return the setting that a word sets.

    >>> key_of("+tuned=best.yaml")
    'tuned'
    """
    return word.partition("=")[0].lstrip("+")


def value_of(words: Sequence[str], key: str, default: str = "") -> str:
    """Return what the last word of a setting gives it, as text.

    >>> value_of(["seed=0", "seed=1"], "seed")
    '1'
    """
    return next((w.partition("=")[2] for w in reversed(words) if key_of(w) == key), default)
