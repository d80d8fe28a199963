"""The chain of SHA-256 over the sections of a certificate; its last link is what is signed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from .canonical import same, sha256

FORMAT = "dlfd-certificate"
VERSION = 4

ORDER = (
    "issued", "run", "request", "split", "leak_audit", "code", "config", "environment",
    "checkpoints", "metrics", "seeds", "times", "files", "statement",
)  # fmt: skip
"""The sections, in the order of the chain."""

START = hashlib.sha256(f"{FORMAT} {VERSION}".encode()).hexdigest()
"""The link before the first section."""


def make_chain(sections: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one entry per section: its digest, and the link that holds it and all before it."""
    entries, link = [], START
    for name in ORDER:
        digest = sha256({name: sections[name]})
        link = hashlib.sha256(bytes.fromhex(link) + bytes.fromhex(digest)).hexdigest()
        entries.append({"section": name, "digest": digest, "link": link})
    return entries


def first_break(sections: Mapping[str, Any], chain: Sequence[Any]) -> str | None:
    """Return the first section whose entry is not what its content gives; None: all hold."""
    if len(chain) != len(ORDER):
        return "the end"
    for made, stored in zip(make_chain(sections), chain, strict=True):
        if not same(made, stored):
            return made["section"]
    return None


def signed_bytes(sections: Mapping[str, Any]) -> bytes:
    """Return what a key signs: the format, so that no other document fits, and the last link."""
    return f"{FORMAT} {VERSION}\n{make_chain(sections)[-1]['link']}".encode()
