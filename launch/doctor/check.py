"""One finding of dlfd doctor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One finding: ok, or what to do."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
