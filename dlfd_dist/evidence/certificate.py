"""Writing the certificate of a finished run, and reading one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from ..digests import SAMPLED
from ..errors import DataError, RunDirError
from ..run_dir import RunDir, write_text
from .canonical import read_json, to_text
from .chain import FORMAT, VERSION, make_chain, signed_bytes
from .keys import PrivateKey, sign
from .pseudonyms import Salt, new_salt, read_salt, write_salt
from .schema import CERTIFICATE_SCHEMA, misfit
from .sections import Recorded, RunFiles, build_sections, digest_of

CERTIFICATE = "certificate.json"
SALT = "certificate.salt.json"

AFTER = "after selection"
"""When a run may read the test set."""

OLDER = {
    1: "whose code and environment are not yet those of the run",
    2: "which tells numbers of images, that a person could be known by",
}
"""Certificates of earlier versions, and why they are no more written."""

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, SafetensorError)
"""What reading files raises that are not those of a run."""


def read_run(path: Path) -> RunFiles:
    """Return the files of a finished run that can be certified."""
    run = RunDir(path)
    if not run.finished():
        raise RunDirError(
            f"{path} is not a finished run (it has no result.json): give the directory of a run "
            "that 'dlfd unlearn' finished."
        )
    needed = (run.config, run.identity, run.request, run.samples)
    missing = [file.name for file in needed if not file.is_file()]
    if missing:
        raise RunDirError(f"{path} lacks {' and '.join(missing)}: it cannot be certified.")
    try:
        files = RunFiles.read(run)
        verb, on = files.config["verb"], files.config["train"]["on"]
    except UNREADABLE as err:
        raise RunDirError(f"The files of {path} cannot be read ({err!r}).") from err
    if verb not in ("unlearn", "train") or (verb == "train" and on != "retain"):
        shown = f"'dlfd {verb}'" + (f" with train.on={on}" if verb == "train" else "")
        raise RunDirError(
            f"{path} is a run of {shown}, which forgets nobody: certify a run of 'dlfd unlearn', "
            "or of 'dlfd train' with train.on=retain."
        )
    if files.identity["inputs"].get("images", "").startswith(SAMPLED):
        raise RunDirError(
            f"{path} knows its images by a sample of them, and a certificate holds for all: make "
            "the run with data.verify=true, which reads every image."
        )
    if files.result.get("test_read", AFTER) != AFTER:
        raise RunDirError(
            f"{path} read the test set '{files.result['test_read']}', not '{AFTER}': its figures "
            "on test are those that it was chosen by, and no evidence. Run it again, choosing on "
            "val."
        )
    _check_weights(files)
    return files


def _check_weights(files: RunFiles) -> None:
    """Refuse a model that is not the one the run delivered and measured."""
    model, measured = files.run.model, files.result.get("model_sha256")
    if not model.is_file():
        raise RunDirError(f"There is no {model}: only a run that has its model can be certified.")
    if measured is not None and digest_of(files.run, model, None) != f"sha256:{measured}":
        raise RunDirError(
            f"{model} is not the model that this run measured: its SHA-256 is not that of "
            "result.json. Run it again in a new directory."
        )


def refuse_second(path: Path) -> None:
    file = path / CERTIFICATE
    if file.exists():
        raise RunDirError(
            f"{file} is there already, and is never written over: 'dlfd verify {path}' checks it; "
            f"move it away to certify anew ({SALT} is used again)."
        )


def issue(
    files: RunFiles, recorded: Recorded, *, names: bool, key: PrivateKey | None
) -> dict[str, Any]:
    """Write the certificate of a run and, where there is none yet, its salt; return it."""
    folder = files.run.path
    refuse_second(folder)
    salt = _salt_for(folder / SALT, files.entries)
    try:
        sections = build_sections(files, salt, recorded, names=names)
    except UNREADABLE as err:
        raise RunDirError(f"The files of {folder} cannot be read ({err!r}).") from err
    document = {
        "format": FORMAT,
        "version": VERSION,
        "sections": sections,
        "chain": make_chain(sections),
        "signature": None if key is None else sign(key, signed_bytes(sections)),
    }
    wrong = misfit(document, CERTIFICATE_SCHEMA)
    if wrong is not None:
        raise RunDirError(f"The files of {folder} are not those of a run of this version: {wrong}.")
    try:
        write_salt(folder / SALT, salt, files.entries)
        write_text(folder / CERTIFICATE, to_text(document))
    except OSError as err:
        raise RunDirError(f"{folder} cannot be written ({err.strerror}).") from err
    return document


def _salt_for(path: Path, entries: list[str]) -> Salt:
    """Return the salt of an earlier certificate of this run, so that people keep their pseudonyms.

    A new one where there is none.
    """
    return read_salt(path)[0] if path.exists() else new_salt()


def read_certificate(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the document of a certificate and its bytes.

    Raises DataError for a file that is no certificate, or one of a version that is not known; what
    else is wrong with it is for `verify` to say.
    """
    value, content = read_json(path, "certificate")
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a certificate: it does not say format={FORMAT}; 'dlfd certify RUN_DIR' "
            "writes one."
        )
    if type(value.get("version")) is int and value["version"] in OLDER:
        raise DataError(
            f"{path} is a certificate of version {value['version']}, {OLDER[value['version']]}: "
            f"this dlfd checks version {VERSION}. Verify it with the dlfd that wrote it, or move "
            "it away and certify the run anew."
        )
    if value.get("version") != VERSION or isinstance(value["version"], bool | float):
        raise DataError(
            f"{path} is a certificate of version {value.get('version')}, and this dlfd knows "
            f"version {VERSION}: verify it with the dlfd that wrote it."
        )
    return value, content
