"""Ed25519 keys as PEM files: made, read, signed with, compared."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey as PrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PublicKey as PublicKey,
)

from ..access import read_regular
from ..errors import ConfigError, DataError

ALGORITHM = "Ed25519"


KEY_ENDINGS = ("", ".pem", ".key")


def public_path(private: Path) -> Path:
    """Return where the public half lies: key.pem -> key.pub.pem, key -> key.pub."""
    return private.with_suffix(f".pub{private.suffix}")


def generate(path: Path) -> PublicKey:
    """Write a new pair: the private key, which only its owner may read, and the public one beside.

    Neither is ever written over.
    """
    if path.suffix.lower() not in KEY_ENDINGS:
        raise ConfigError(
            f"{path} ends in {path.suffix}, and a key is a PEM file: give a path that ends in .pem."
        )
    key, public = PrivateKey.generate(), public_path(path)
    for file in (path, public):
        if file.exists() or file.is_symlink():
            raise ConfigError(
                f"{file} is there already, and a key is never written over: give another path."
            )
    private_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        write_new(path, private_pem, 0o600)
        write_new(public, public_pem, 0o644)
    except OSError as err:
        raise ConfigError(
            f"The key {err.filename} cannot be written ({err.strerror}): give a path in a folder "
            "that can be written."
        ) from err
    return key.public_key()


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; from its first moment it has this mode or less."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)


def read_private(path: Path) -> PrivateKey:
    """Read a private key; one that others may read is refused, for they could sign with it."""
    content = _read(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise DataError(
            f"The private key {path} may be read by others (mode {mode:o}): make it yours alone "
            f"with 'chmod 600 {path}'."
        )
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as err:
        raise DataError(
            f"The private key {path} is protected by a passphrase, which dlfd does not ask for: "
            "give a key without one, such as 'dlfd keygen PATH' makes."
        ) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise DataError(
            f"{path} is not a private key in PEM form: give one that 'dlfd keygen PATH' made."
        ) from err
    if not isinstance(key, PrivateKey):
        raise DataError(f"{path} is not an {ALGORITHM} key: make one with 'dlfd keygen PATH'.")
    return key


def read_public(path: Path) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as err:
        raise DataError(
            f"{path} is not a public key in PEM form: give the .pub file that 'dlfd keygen' made."
        ) from err
    if not isinstance(key, PublicKey):
        raise DataError(f"{path} is not an {ALGORITHM} key: give one that 'dlfd keygen' made.")
    return key


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as err:
        raise DataError(f"The key {path} cannot be read ({err.strerror}).") from err


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of a public key's 32 bytes."""
    return "sha256:" + hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(key: PrivateKey, message: bytes) -> dict[str, str]:
    public = key.public_key()
    return {
        "algorithm": ALGORITHM,
        "public_key": public.public_bytes_raw().hex(),
        "fingerprint": fingerprint(public),
        "signature": key.sign(message).hex(),
    }


def signer(signature: dict[str, Any], message: bytes) -> PublicKey | None:
    """Return the key that a signature is of; None where it does not fit the message."""
    try:
        key = PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        key.verify(bytes.fromhex(signature["signature"]), message)
    except (InvalidSignature, ValueError):
        return None
    return key if fingerprint(key) == signature["fingerprint"] else None
