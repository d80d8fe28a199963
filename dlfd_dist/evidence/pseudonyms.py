"""Salted pseudonyms: a certificate names nobody, and nobody can be found by trying names.

Every digest of something a name or a request could be guessed from is HMAC-SHA256 under a random
salt, which lies beside the certificate in a private file with the names that the pseudonyms stand
for. A plain SHA-256 of `request.csv` would give the names away to whoever tries those of the data.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..digests import file_digest
from ..errors import DataError
from ..plain import letters
from ..run_dir import replacing
from .canonical import read_json, to_text
from .keys import write_new
from .schema import SALT_SCHEMA, misfit

SALT_FORMAT = "dlfd-certificate-salt"
BYTES = 32
MIN_PART = 4
"""A name of so many letters and digits is looked for inside words too; a shorter one as a word."""


@dataclass(frozen=True)
class Salt:
    """The secret of one certificate."""

    value: bytes

    def of(self, kind: str, *texts: str) -> str:
        """Return the keyed digest of some texts; `kind` keeps apart what they are."""
        message = b"\0".join(text.encode() for text in (kind, *texts))
        return "hmac-sha256:" + hmac.new(self.value, message, hashlib.sha256).hexdigest()

    def of_bytes(self, kind: str, content: bytes) -> str:
        return self.of(kind, hashlib.sha256(content).hexdigest())

    def of_file(self, path: Path) -> str:
        """Return the keyed digest of a file's content."""
        return self.of("file", file_digest(path))

    def pseudonym(self, entry: str) -> str:
        """Return what stands for a line of the request."""
        return self.of("entry", entry)

    def of_pseudonyms(self, entries: Iterable[str]) -> str:
        """Return the keyed digest of all lines of the request, in no order."""
        return self.of("entries", *sorted({self.pseudonym(entry) for entry in entries}))


def new_salt() -> Salt:
    return Salt(secrets.token_bytes(BYTES))


def salt_text(salt: Salt, entries: Iterable[str]) -> str:
    names = {salt.pseudonym(entry): entry for entry in entries}
    return to_text({"format": SALT_FORMAT, "version": 1, "salt": salt.value.hex(), "names": names})


def write_salt(path: Path, salt: Salt, entries: Iterable[str]) -> None:
    """Write the salt and who the pseudonyms stand for; only the owner may read it."""
    with replacing(path, secret=True) as partial:
        partial.unlink(missing_ok=True)
        write_new(partial, salt_text(salt, entries).encode(), 0o600)
        os.chmod(partial, 0o600)


def read_salt(path: Path) -> tuple[Salt, list[str]]:
    """Return a salt and its names; every byte of the file must be what these two give."""
    value, content = read_json(path, "salt file of a certificate")
    wrong = misfit(value, SALT_SCHEMA)
    if wrong is not None:
        raise DataError(f"{path} is not the salt file of a certificate: {wrong}.")
    salt, names = Salt(bytes.fromhex(value["salt"])), list(value["names"].values())
    strings = all(isinstance(name, str) for name in names)
    if not strings or salt_text(salt, names).encode() != content:
        raise DataError(f"{path} was changed: its pseudonyms are not those of its names.")
    return salt, names


class Hider:
    """Puts keyed digests in the place of words that could name the people of a request.

    Parameters
    ----------
    entries : the lines of the request: identities and image paths
    shown : names were asked for; then nothing is hidden
    """

    def __init__(self, salt: Salt, entries: Iterable[str], *, shown: bool):
        self.salt = salt
        self.shown = shown
        parts = {part for entry in entries for part in _parts(entry)}
        self.words = {part for part in parts if len(part) < MIN_PART}
        self.inside = parts - self.words

    def always(self, text: str) -> str:
        """Hide free text, such as a path."""
        return text if self.shown else self.salt.of("text", text)

    def names_somebody(self, text: str) -> bool:
        """Whether a name of the request, or a folder or file of one, stands in a text."""
        plain = letters(text)
        spelled = unicodedata.normalize("NFKC", text)
        words = {letters(word) for word in re.split(r"[\W_]+", spelled)} | {plain}
        return bool(words & self.words) or any(part in plain for part in self.inside)

    def within(self, value: Any) -> Any:
        """Return a JSON value in which every text that names somebody is hidden."""
        if isinstance(value, dict):
            return {key: self.within(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.within(inner) for inner in value]
        if isinstance(value, str) and self.names_somebody(value):
            return self.always(value)
        return value


def _parts(entry: str) -> set[str]:
    """Return an entry, its words, and of a path its folders and file name, as plain text."""
    entry = unicodedata.normalize("NFKC", entry)
    parts = re.split(r"[/\\]", entry)
    words = [word for word in re.split(r"[\W\d_]+", entry) if len(word) >= MIN_PART]
    names = {entry, *parts, parts[-1].rsplit(".", 1)[0], *words}
    return {plain for plain in map(letters, names) if plain}
