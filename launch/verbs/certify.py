"""dlfd certify, verify and keygen: the certificate of a run, written and checked."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfd_dist import __version__
from dlfd_dist.errors import FAILED, NOT_ALL_CHECKED, UNKNOWN_SIGNER, ConfigError, DataError
from dlfd_dist.evidence import (
    ABSOLUTE,
    CERTIFICATE,
    RELATIVE,
    SALT,
    STATEMENT,
    Check,
    Given,
    Recorded,
    fingerprint,
    generate,
    issue,
    public_path,
    read_certificate,
    read_private,
    read_public,
    read_run,
    refuse_second,
    stands_alone,
    verify,
)
from dlfd_dist.provenance import current, environment, utc
from dlfd_dist.run_dir import RunDir
from dlfd_dist.terminal import print_facts, print_table
from dlfd_dist.yaml_text import read_yaml

from ..dry_run import dry_run_text

if TYPE_CHECKING:
    from dlfd_dist.config import JobConfig
    from dlfd_dist.data.loaders import ResolvedData

WIDTH = 12
"""Of the names of what is printed."""
TO_MIND = ("left_as_is", "only_confidence", "alike", "attack_floor", "over_forgetting")
"""Guards of a result that `dlfd certify` names."""


def run_keygen(words: Sequence[str], *, dry_run: bool, as_json: bool) -> int:
    """Write a new pair of keys."""
    path = _path(words, "keygen", "PATH, where the private key shall lie")
    files = [str(path), str(public_path(path))]
    if dry_run:
        print(dry_run_text({}, (), files, as_json=as_json))
        return 0
    mark = fingerprint(generate(path))
    if as_json:
        print(json.dumps({"files": files, "fingerprint": mark}, indent=2, sort_keys=True))
    else:
        private = ("private key", f"{files[0]} (keep it to yourself)")
        print_facts([private, ("public key", files[1]), ("fingerprint", mark)], WIDTH)
    return 0


def run_certify(
    words: Sequence[str], *, key: str | None, names: bool, dry_run: bool, as_json: bool
) -> int:
    """Write the certificate of a finished run."""
    path = _path(words, "certify", "the directory of a finished run")
    evidence = read_run(path)
    refuse_second(path)
    private = None if key is None else read_private(Path(key))
    if dry_run:
        files = [str(path / CERTIFICATE), str(path / SALT)]
        print(dry_run_text({}, (), files, as_json=as_json))
        return 0
    signed_by = None if private is None else fingerprint(private.public_key())
    document = issue(evidence, _recorded(evidence.run, signed_by), names=names, key=private)
    if as_json:
        print(json.dumps(document, indent=2, sort_keys=True))
        return 0
    facts = [
        *(("mind", reason) for reason in _to_mind(document)),
        ("certificate", str(path / CERTIFICATE)),
        ("salt", f"{path / SALT} (private: it tells who the pseudonyms are)"),
        ("signed by", signed_by or "nobody: --key KEY.pem signs it"),
    ]
    print_facts(facts, WIDTH)
    return 0


def run_verify(
    words: Sequence[str], *, recompute: bool, as_json: bool, public_key: str | None = None,
    checkpoint: str | None = None, reference: str | None = None,
) -> int:  # fmt: skip
    """Check a certificate; return 0 when every check holds, 1 when a check fails.

    NOT_ALL_CHECKED is returned when none of the certificate's files is there, or a model that went
    in is not, and all else holds.
    UNKNOWN_SIGNER is returned when every check holds and no trusted key vouches for the
    certificate: a user who can write the run directory may have certified other files, with any
    key or none.
    """
    path = _path(words, "verify", "a run directory or its certificate.json")
    trusted = None if public_key is None else read_public(Path(public_key))
    model, retrained = (None if name is None else Path(name) for name in (checkpoint, reference))
    measure = (lambda run: _measure(run, retrained)) if recompute else None
    checks = verify(path, Given(trusted, model, retrained, measure, asdict(current()[0])))
    good, alone = all(check.ok for check in checks), stands_alone(path)
    failed = any(check.made and not check.ok for check in checks)
    if as_json:
        outcome = {
            "ok": good, "alone": alone, "authentic": good and trusted is not None,
            "checks": [asdict(check) for check in checks], **STATEMENT,
        }  # fmt: skip
        print(json.dumps(outcome, indent=2, sort_keys=True))
    else:
        _print_checks(checks, recompute=recompute, whole=good and not alone)
        print(f"\n{ALONE if good and alone else _outcome(checks, trusted=trusted is not None)}")
        if not failed:
            _print_what_is_said(path)
    if failed:
        return FAILED
    if alone or not good:
        return NOT_ALL_CHECKED
    return UNKNOWN_SIGNER if trusted is None else 0


ALONE = (
    "The certificate itself holds. None of the files that it certifies lies beside it, and none "
    "was checked: 'dlfd verify RUN_DIR' does that where the run directory is."
)


def _outcome(checks: Sequence[Check], *, trusted: bool) -> str:
    failed = sum(check.made and not check.ok for check in checks)
    if failed:
        return f"{failed} of {len(checks)} checks FAILED"
    if missing := [check.name for check in checks if not check.made]:
        vouched = "" if trusted else " Nobody you trust vouches for it: give --public-key."
        return (
            f"every check that could be made holds, and {len(missing)} of {len(checks)} could not: "
            f"{' and '.join(missing)}. Whoever checks those needs the models themselves.{vouched}"
        )
    if trusted:
        return "every check holds"
    return (
        "every check holds, and nobody you trust vouches for it: it is not signed, or signed by an "
        "unknown key. Give the signer's --public-key KEY.pub.pem."
    )


def _to_mind(document: dict[str, Any]) -> list[str]:
    """Return what the run itself warns of, sentence by sentence."""
    guards = document["sections"]["metrics"]["guards"]
    return [guards[name]["reason"] for name in TO_MIND if guards[name]["flag"]]


def _print_what_is_said(path: Path) -> None:
    document, _ = read_certificate(path / CERTIFICATE if path.is_dir() else path)
    if mind := _to_mind(document):
        print("That is no verdict on the forgetting. Of that the certificate itself says:")
        print_facts([("mind", reason) for reason in mind], WIDTH)


def _print_checks(checks: Sequence[Check], *, recompute: bool, whole: bool) -> None:
    words = {True: "ok", False: "FAILED"}
    rows = [(words[c.ok] if c.made else "absent", c.name, c.meaning) for c in checks]
    lines = [f"{word:8}{name}: {meaning}" for word, name, meaning in rows]
    print_table(rows, plain="\n".join(lines))
    if recompute:
        print(
            f"(recompute: bit for bit on the same machine and threads, elsewhere within "
            f"{RELATIVE:g} relative or {ABSOLUTE:g} absolute)"
        )
    proves = "proves" if whole else "would prove if every check held"
    for title, key in ((proves, "proves"), ("does not prove", "does_not_prove")):
        print(f"\nWhat a certificate {title}:")
        for line in STATEMENT[key]:
            print(f"  - {line}")


def _path(words: Sequence[str], verb: str, what: str) -> Path:
    if len(words) != 1:
        given = f"{len(words)} words" if words else "nothing"
        raise ConfigError(f"'dlfd {verb}' was given {given}: give {what}.")
    return Path(words[0])


def _recorded(run: RunDir, signed_by: str | None) -> Recorded:
    written = datetime.fromtimestamp(run.result.stat().st_mtime, timezone.utc)
    return Recorded(
        asdict(current()[0]), environment(), utc(), utc(written), __version__, signed_by
    )


def _measure(run: RunDir, reference: Path | None) -> dict[str, Any]:
    """Return the figures of a run's delivered model, measured again on one rank here.

    The images are decoded anew. Raises DlfdError where data or models are not what the run had.
    """
    from dlfd_dist.data.loaders import Batches, resolve_data
    from dlfd_dist.jobs.context import Job, Prepared, matched
    from dlfd_dist.jobs.evaluation import outputs_of_parts
    from dlfd_dist.jobs.finish import (
        figures_of,
        matched_to,
        outputs_of_fresh,
        outputs_of_reference,
    )
    from dlfd_dist.jobs.models import DTYPES
    from dlfd_dist.runtime.env import RankInfo
    from dlfd_dist.runtime.init import process_group

    _refuse_named_code(run)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dlfd-verify-"))
        config = _to_measure(run, folder, reference)
        rows = resolve_data(config.data, config.drawn_forget)
        inputs, signature = _inputs(run, rows)
        data, people = matched(config, rows)
        collectives = stack.enter_context(process_group(config.runtime, RankInfo()))
        batches = Batches(
            data, config.data, collectives=collectives, dtype=DTYPES[config.runtime.dtype],
            channels_last=config.runtime.channels_last,
        )  # fmt: skip
        job = Job(Prepared(config, data, inputs, signature, run, people), collectives, batches)
        parts = outputs_of_parts(job.model(str(run.model)), batches, config)
        others = outputs_of_fresh(job), outputs_of_reference(job)
        return figures_of(config, parts, *others) | matched_to(job)


def _to_measure(run: RunDir, cache: str, reference: Path | None) -> JobConfig:
    """Return the configuration of a run on one rank; what the run's own cache holds is no evidence.

    cache : an empty folder
    """
    from dlfd_dist.compose import load_config

    config = load_config(run.config)
    return replace(
        config, data=replace(config.data, cache_dir=cache, leaks=False),
        reference=str(reference) if reference else config.reference,
        runtime=replace(config.runtime, world_size=1),
    )  # fmt: skip


def _inputs(run: RunDir, data: ResolvedData) -> tuple[dict[str, str], str]:
    """Return the digests of what went into a run, and its signature; DataError for other data."""
    identity = json.loads(run.identity.read_text(encoding="utf-8"))
    inputs = identity["inputs"]
    # Older runs did not write down the contents of their images.
    changed = [
        name for name, digest in data.digests().items() if inputs.get(name, digest) != digest
    ]
    if changed:
        raise DataError(
            f"The {' and '.join(changed)} of now is not what the run had: give it back its data."
        )
    return inputs, identity["signature"]


def _refuse_named_code(run: RunDir) -> None:
    """Refuse to import, and to call, what a run directory names: it may be a stranger's."""
    values = read_yaml(run.config.read_text(encoding="utf-8"))
    model, data = values.get("model") or {}, values.get("data") or {}
    named = {
        "model.factory": model.get("factory"),
        "model.features": model.get("features"),
        "data.factory": data.get("factory"),
        "plugins": values.get("plugins"),
    }
    for setting, value in named.items():
        if value:
            raise DataError(
                f"{run.config} names code ({setting}={value}), which 'dlfd verify' does not "
                "import: --recompute is for models and data sets of dlfd itself. Leave --recompute "
                "out, or evaluate the model with code that you trust."
            )
