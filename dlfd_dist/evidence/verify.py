"""Every check of a certificate: form, chain, signature, files, contents, and what went in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..digests import file_digest
from ..errors import DlfdError
from ..run_dir import RunDir
from .canonical import same, to_text
from .certificate import CERTIFICATE, SALT, UNREADABLE, read_certificate
from .chain import ORDER, first_break, signed_bytes
from .keys import PublicKey, signer
from .pseudonyms import Salt, read_salt
from .recomputed import compare_figures
from .schema import CERTIFICATE_SCHEMA, misfit
from .sections import Recorded, RunFiles, build_sections, certified_files, digest_of, figures_of

Measure = Callable[[RunDir], dict[str, Any]]
"""Returns the figures of the delivered model of a run, measured again; may raise DlfdError."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    meaning: str
    made: bool = True
    """Whether it could be looked at; a check that was not made does not hold."""


@dataclass(frozen=True)
class Given:
    """What the caller brings to a verification."""

    public_key: PublicKey | None = None
    """the key that must have signed"""
    checkpoint: Path | None = None
    """the weights that went in; None: where config.yaml says"""
    reference: Path | None = None
    """the reference model; None: where config.yaml says"""
    measure: Measure | None = None
    """None: the figures are not measured again"""
    code: Mapping[str, Any] | None = None
    """version, revision and diff_sha256 of what measures"""


NOTHING = Given()


def verify(path: Path, given: Given = NOTHING) -> list[Check]:
    """Check a certificate, or that of a run directory, beside the files it certifies.

    Of a certificate that stands alone (`stands_alone`) form, chain and signature are checked.

    Raises DataError where there is no certificate at all.
    """
    file = path / CERTIFICATE if path.is_dir() else path
    document, content = read_certificate(file)
    form = _form(document, content)
    if not form.ok and misfit(document, CERTIFICATE_SCHEMA) is not None:
        return [form]  # nothing else can be read out of it
    sections, run = document["sections"], RunDir(file.parent)
    checks = [form, _chain(document), _signature(document, given.public_key)]
    if stands_alone(path):
        return checks
    salt, salt_check = _salt(run, sections)
    checks += [salt_check, *_files(run, salt, sections["files"])]
    intact = all(check.ok for check in checks[3:])
    checks.append(_contents(run, salt, sections) if intact and salt else _not_read("contents"))
    checks += _went_in(run, sections["checkpoints"], given, readable=checks[-1].ok)
    if given.measure is not None:
        intact = all(check.ok for check in checks)
        checks.append(
            _recompute(run, sections, given, given.measure) if intact else _not_read("recompute")
        )
    return checks


def stands_alone(path: Path) -> bool:
    """Return whether a certificate's own file was given, and nothing of its run lies beside it."""
    if path.is_dir():
        return False
    run = RunDir(path.parent)
    beside = (run.path / SALT, *certified_files(run, all_names=True))
    return not any(file.exists() for file in beside)


def _form(document: dict[str, Any], content: bytes) -> Check:
    wrong = misfit(document, CERTIFICATE_SCHEMA)
    if wrong is not None:
        return Check("form", False, f"this is not how a certificate looks: {wrong}")
    if to_text(document).encode() != content:
        return Check("form", False, "the file is not written as 'dlfd certify' writes it")
    return Check("form", True, "every field is known, and no byte stands otherwise than written")


def _chain(document: dict[str, Any]) -> Check:
    broken = first_break(document["sections"], document["chain"])
    if broken is not None:
        return Check("chain", False, f"it breaks at '{broken}', which was changed")
    last = document["chain"][-1]["link"]
    return Check("chain", True, f"all {len(ORDER)} sections are as chained; last link {last}")


def _signature(document: dict[str, Any], trusted: PublicKey | None) -> Check:
    signature, said = document["signature"], document["sections"]["issued"]["signed_by"]
    if signature is None and said is not None:
        return Check("signature", False, f"it was signed by key {said}, and the signature is gone")
    if signature is None and trusted is not None:
        return Check("signature", False, "the certificate is not signed, and a key was given")
    if signature is None:
        return Check("signature", True, "not signed: whoever can write it could have made it")
    key = signer(signature, signed_bytes(document["sections"]))
    if key is None or signature["fingerprint"] != said:
        return Check("signature", False, "the signature is not of this certificate")
    if trusted is None:
        meaning = f"signed by an unknown key, {said}: compare it with one you trust (--public-key)"
        return Check("signature", True, meaning)
    if key.public_bytes_raw() != trusted.public_bytes_raw():
        return Check("signature", False, f"signed by key {said}, which is not the key given")
    return Check("signature", True, f"signed by the key given, {said}")


def _salt(run: RunDir, sections: dict[str, Any]) -> tuple[Salt | None, Check]:
    path = run.path / SALT
    if not path.is_file():
        meaning = f"{SALT} is missing, without which files that could name people are not checked"
        return None, Check("salt", False, meaning)
    try:
        salt, names = read_salt(path)
    except DlfdError as err:
        return None, Check("salt", False, str(err).rstrip("."))
    if salt.of_pseudonyms(names) != sections["request"]["pseudonyms"]:
        return salt, Check("salt", False, "its pseudonyms are not those of the certificate")
    return salt, Check("salt", True, f"{SALT} tells who the pseudonyms are")


def _files(run: RunDir, salt: Salt | None, entries: list[dict[str, str]]) -> Iterator[Check]:
    known = {p.relative_to(run.path).as_posix(): p for p in certified_files(run, all_names=True)}
    for entry in entries:
        name = f"file {entry['path']}"
        path = known.get(entry["path"])
        if path is None:
            yield Check(name, False, "a certificate is never of such a path")
        elif not path.is_file():
            yield Check(name, False, "it is missing")
        else:
            yield _file(name, digest_of(run, path, salt), entry["digest"])
    for path in certified_files(run):
        relative = path.relative_to(run.path).as_posix()
        if relative not in {entry["path"] for entry in entries}:
            yield Check(f"file {relative}", False, "it is not of the certificate: it came later")


def _file(name: str, digest: str | None, certified: str) -> Check:
    if digest is None:
        return Check(name, False, f"not checked, for that needs {SALT}")
    if digest != certified:
        return Check(name, False, "it was changed")
    return Check(name, True, "as it was certified")


def _not_read(name: str) -> Check:
    return Check(name, False, "not looked at, because of what failed above")


def _contents(run: RunDir, salt: Salt, sections: dict[str, Any]) -> Check:
    """Build the sections out of the files again and compare."""
    try:
        names = sections["issued"]["names"]
        built = build_sections(RunFiles.read(run), salt, Recorded.of(sections), names=names)
        wrong = [name for name in ORDER if not same(built[name], sections[name])]
    except (*UNREADABLE, OSError) as err:
        return Check("contents", False, f"the files cannot be read ({err!r})")
    if wrong:
        return Check("contents", False, f"{', '.join(wrong)}: not what the files say")
    return Check("contents", True, "the certificate says what the files say")


def _went_in(
    run: RunDir, checkpoints: dict[str, str | None], given: Given, *, readable: bool
) -> Iterator[Check]:
    """Compare the weights that went in; config.yaml is believed only where it is intact."""
    config = RunFiles.read(run).config if readable else {}
    for key, setting, path in (
        ("in", "checkpoint", given.checkpoint), ("reference", "reference", given.reference),
    ):  # fmt: skip
        if (certified := checkpoints[key]) is None:
            continue
        where = path or (_found(run, config[setting]) if config.get(setting) else None)
        yield _weights(setting, where, certified)


def _found(run: RunDir, named: str) -> Path:
    """Return a path of config.yaml, from here or from a folder that the run directory lies in."""
    places = (Path(), *run.path.resolve().parents)
    return next((p for place in places if (p := place / named).exists()), Path(named))


def _weights(name: str, path: Path | None, certified: str) -> Check:
    file = RunDir(path).model if path is not None and path.is_dir() else path
    if file is None or not file.is_file():
        shown = f" at {path}" if path else ""
        meaning = f"not checked, for it is not here{shown}: --{name} PATH says where it is"
        return Check(name, False, meaning, made=False)
    if f"sha256:{file_digest(file)}" != certified:
        return Check(name, False, f"{file} is not what went in")
    return Check(name, True, f"{file} is what went in")


def _recompute(run: RunDir, sections: dict[str, Any], given: Given, measure: Measure) -> Check:
    try:
        again = measure(run)
    except DlfdError as err:
        return Check("recompute", False, f"not possible: {str(err).rstrip('.')}")
    # Those of the certificate may be coarse: it was compared with the files, which are exact.
    ok, meaning = compare_figures(figures_of(RunFiles.read(run).result), again)
    stored = {name: sections["code"].get(name) for name in given.code or {}}
    if not ok and stored != given.code:
        meaning += (
            "; the code that measures here is not that of the run, and figures may be defined "
            f"otherwise: check out {_named(stored)} and verify again"
        )
    return Check("recompute", ok, meaning)


def _named(code: Mapping[str, Any]) -> str:
    changed = " with its changes" if code.get("diff_sha256") else ""
    revision = code.get("revision")
    return f"revision {revision}{changed}" if revision else f"version {code.get('version')}"
