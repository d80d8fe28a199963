"""The sections of a certificate, out of a run directory; verification builds them again.

What a run directory does not tell (the hours; of older runs also code and environment) is recorded
when it is certified.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..digests import file_digest
from ..metrics import guards_of
from ..plain import band, bands, from_cell
from ..run_dir import RunDir
from ..yaml_text import read_yaml
from .coarse import coarse
from .pseudonyms import Hider, Salt
from .statement import STATEMENT

PARTS = ("retain", "forget", "val", "test")

FACTS = {
    "verb", "seed", "world_size", "device", "job_id", "restarts", "signature", "title",
    "synthetic", "may_show", "credit", "label_names", "image_size", "num_images", "selected_step",
    "selection", "test_read", "num_steps", "wall_seconds", "device_seconds", "energy_joules",
    "peak_memory_mb", "model_sha256", "leaks", "guards", "forget_labels", "groups", "slurm_usage",
}  # fmt: skip
"""What result.json holds beside figures. Class names and credits are left out of a certificate: the
classes may be people."""

FREE_TEXT = {
    "": ("checkpoint", "reference"),
    "data": ("root", "manifest", "cache_dir", "args"),
    "model": ("args", "folder"),
    "forget": ("request",),
    "method": ("reference_manifest",),
    "run": ("name", "root", "dir"),
}
"""Settings that a user words freely: never in a certificate without names."""

NOT_LOOKED_FOR = (
    "Equal images were not looked for (data.leaks=false): an image of the request may still be "
    "trained on, or measured as unseen, under another path."
)
NONE = (0, band(0))
DRAWN = "The faces are drawn, no two alike: equal images were not looked for."


@dataclass(frozen=True)
class Recorded:
    """What is known only at the moment of certification."""

    code: dict[str, Any]
    """version, revision and diff_sha256; it counts where the run wrote down none, as environment"""
    environment: dict[str, Any]
    """python, platform, packages"""
    certified: str
    result_written: str
    """both as 2026-01-31T23:59:59Z"""
    version: str
    signed_by: str | None
    """fingerprint of the key"""

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Recorded:
        """Return what a certificate recorded."""
        code, environment = (
            {k: value for k, value in sections[name].items() if k not in ("as_of", "changed")}
            for name in ("code", "environment")
        )
        times, issued = sections["times"], sections["issued"]
        return cls(
            code, environment, times["certified"], times["result_written"], issued["version"],
            issued["signed_by"],
        )  # fmt: skip


@dataclass(frozen=True)
class RunFiles:
    """The small files of a finished run, read."""

    run: RunDir
    result: dict[str, Any]
    config: dict[str, Any]
    identity: dict[str, Any]
    request: list[dict[str, str]]
    removed: list[dict[str, str]] | None
    starts: list[dict[str, Any]]

    @classmethod
    def read(cls, run: RunDir) -> RunFiles:
        removed = _read_csv(run.removed) if run.removed.is_file() else None
        return cls(
            run, run.read_result(), read_yaml(run.config.read_text(encoding="utf-8")),
            json.loads(run.identity.read_text(encoding="utf-8")), _read_csv(run.request), removed,
            run.read_starts(),
        )  # fmt: skip

    @property
    def entries(self) -> list[str]:
        return [line["entry"] for line in self.request]


def _read_csv(path: Path) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    return [{name: from_cell(value) for name, value in row.items()} for row in rows]


def certified_files(run: RunDir, *, all_names: bool = False) -> list[Path]:
    """Return the files of a run directory that count: those that are there, or `all_names`."""
    paths = (
        run.config, run.identity, run.environment, run.request, run.removed, run.leaks, run.metrics,
        run.samples, run.result, run.model,
    )  # fmt: skip
    return [path for path in paths if all_names or path.is_file()]


def digest_of(run: RunDir, path: Path, salt: Salt | None) -> str | None:
    """Return the digest under which a file is certified: plain for weights, which name nobody.

    None: it needs the salt, and there is none.
    """
    if path == run.model:
        return "sha256:" + file_digest(path)
    return None if salt is None else salt.of_file(path)


def build_sections(
    files: RunFiles, salt: Salt, recorded: Recorded, *, names: bool
) -> dict[str, Any]:
    """Return all sections of the certificate of a run.

    Parameters
    ----------
    names : show the people of the request, and paths
    """
    hider = Hider(salt, files.entries, shown=names)
    return {
        "issued": {
            "version": recorded.version,
            "names": names,
            "signed_by": recorded.signed_by,
        },
        "run": _run(files, salt, hider),
        "request": _request(files, salt, names=names),
        "split": _split(files, salt, names=names),
        "leak_audit": _leak_audit(files, salt, names=names),
        "code": _as_of(files, "code", recorded.code),
        "config": _config(files.config, hider) | _named_code(files.identity["inputs"]),
        "environment": _as_of(files, "environment", recorded.environment),
        "checkpoints": _checkpoints(files),
        "metrics": {
            "figures": _figures(files.result, names=names),
            "guards": guards_of(files.result),
        },
        "seeds": _seeds(files.config),
        "times": {
            "wall_seconds": files.result["wall_seconds"],
            "device_seconds": files.result["device_seconds"],
            "started": files.starts[0]["started"] if files.starts else None,
            "result_written": recorded.result_written,
            "certified": recorded.certified,
        },
        "files": _files(files.run, salt),
        "statement": STATEMENT,
    }


def _as_of(files: RunFiles, name: str, at_certification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the code or the environment of the last start of a run that wrote them down.

    Else those of certification. `changed`: an earlier start had another.
    """
    states = [start[name] for start in files.starts]
    if not states:
        return {"as_of": "certification", "changed": None, **at_certification}
    return {"as_of": "run", "changed": any(state != states[-1] for state in states), **states[-1]}


def _run(files: RunFiles, salt: Salt, hider: Hider) -> dict[str, Any]:
    result, config = files.result, files.config
    names = (
        "world_size", "device", "job_id", "restarts", "selected_step", "selection", "test_read",
        "num_steps", "peak_memory_mb",
    )  # fmt: skip
    return {
        "verb": config["verb"],
        "method": config["method"]["name"] if config["verb"] == "unlearn" else None,
        "title": hider.within(result["title"]),
        "synthetic": result["synthetic"],
        # 8 hex digits over settings and request: in clear, names could be tried against them.
        "signature": salt.of("signature", files.identity["signature"]),
        **{name: result.get(name) for name in names},
    }


def _request(files: RunFiles, salt: Salt, *, names: bool) -> dict[str, Any]:
    """Return the request; without names, lines of single images are counted in bands only.

    They may be the images of one person, who could be known by their number.
    """
    matched = [line for line in files.request if line["status"] == "matched"]
    shown = [line for line in files.request if names or line["kind"] == "identity"]
    lines = [_line(line, salt, names=names) for line in shown]
    images = {
        "single_images": sum(line["kind"] == "image" for line in matched),
        "outside_training": len(files.request) - len(matched),
    }
    return {
        "rows": salt.of("rows", files.identity["inputs"]["request"]),
        "pseudonyms": salt.of_pseudonyms(files.entries),
        "people": sum(line["kind"] == "identity" for line in matched),
        **(images if names else bands(images)),
        # In the order of the pseudonyms, for that of the file may be that of the names.
        "lines": sorted(lines, key=lambda line: line["pseudonym"]),
    }


def _line(line: Mapping[str, str], salt: Salt, *, names: bool) -> dict[str, Any]:
    """Return a line of the request; how many images a person has may say who it is."""
    shown = {"name": line["entry"], "num_images": int(line["num_images"])} if names else {}
    pseudonym = salt.pseudonym(line["entry"])
    return {"pseudonym": pseudonym, "kind": line["kind"], "status": line["status"], **shown}


def _split(files: RunFiles, salt: Salt, *, names: bool) -> dict[str, Any]:
    """Return the parts; how many images they have may say who it is, as who is gone is the rest."""
    counts, inputs = files.result["num_images"], files.identity["inputs"]
    with safe_open(files.run.samples, framework="numpy") as samples:
        stored = set(samples.keys())
        rows = {
            part: samples.get_tensor(f"{part}.ids").astype("<i8").tobytes()
            if f"{part}.ids" in stored
            else b""
            for part in PARTS
        }
    return {
        # Of older runs that of the rows alone.
        "data": salt.of("data", " ".join(inputs[n] for n in ("data", "images") if n in inputs)),
        "parts": {
            part: {
                "images": counts[part] if names else band(counts[part]),
                "rows": salt.of_bytes("part", rows[part]),
            }
            for part in PARTS
        },
    }


def _leak_audit(files: RunFiles, salt: Salt, *, names: bool) -> dict[str, Any]:
    """Return what was found twice, and what data.clean left out; the list's digest is keyed."""
    audit = files.result.get("leaks")
    removed = files.removed or []
    reasons = [row["reason"] for row in removed]
    stay = sum((row["part"], row["kept_part"]) == ("forget", "retain") for row in removed)
    counts = {
        "found": audit and {**audit, "digest": salt.of("leaks", audit["digest"])},
        "duplicates": sum(reason.endswith("duplicate") for reason in reasons),
        "leaks": sum(reason.endswith("leak") for reason in reasons),
        "forget_kept_in_retain": stay,
    }
    shown = counts if names else bands(counts)
    return {**shown, "removed": files.removed is not None, "warning": _leak_warning(files, shown)}


def _leak_warning(files: RunFiles, shown: Mapping[str, Any]) -> str:
    audit, stay = shown["found"], shown["forget_kept_in_retain"]
    if stay not in NONE:
        return (
            f"{stay} images of the request are equal or near to retain images, which stay and "
            "were trained on."
        )
    if audit is not None and audit["forget_retain"] not in NONE:
        return (
            f"{audit['forget_retain']} pairs join an image of the request and one that stays in "
            "the retain set and was trained on."
        )
    if files.result["synthetic"]:
        return DRAWN
    return NOT_LOOKED_FOR if audit is None and files.removed is None else ""


def _config(config: Mapping[str, Any], hider: Hider) -> dict[str, Any]:
    hidden = dict(config)
    for section, settings in FREE_TEXT.items():
        values = hidden if not section else dict(hidden[section])
        for name in settings:
            if values.get(name) not in (None, {}):
                values[name] = hider.always(str(values[name]))
        hidden = values if not section else {**hidden, section: values}
    return hider.within(hidden)


def _named_code(inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the digests of the code that settings name or plugins bring, as model_code.

    That of the file that says how transformers makes a model is among them.

    Nothing where all code is ours.
    """
    named = {
        name: f"sha256:{digest}"
        for name, digest in inputs.items()
        if name.endswith("_code") or name == "model_config"
    }
    return {"named_code": named} if named else {}


def _checkpoints(files: RunFiles) -> dict[str, Any]:
    inputs = files.identity["inputs"]
    given = {"in": inputs.get("checkpoint"), "reference": inputs.get("reference")}
    return {
        **{name: digest and f"sha256:{digest}" for name, digest in given.items()},
        "out": digest_of(files.run, files.run.model, None),
    }


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a run, exactly as measured."""
    return {name: value for name, value in result.items() if name not in FACTS}


def _figures(result: Mapping[str, Any], *, names: bool) -> dict[str, Any]:
    figures = figures_of(result)
    return figures if names else coarse(figures, result["num_images"])


def _seeds(config: Mapping[str, Any]) -> dict[str, int]:
    drawn_with = config["forget"]["seed"]
    return {
        "run": config["seed"],
        "forget": config["seed"] if drawn_with is None else drawn_with,
        "split": config["data"]["split_seed"],
        "metrics": config["metrics"]["seed"],
        "synthetic": config["data"]["synthetic"]["seed"],
    }


def _files(run: RunDir, salt: Salt) -> list[dict[str, Any]]:
    return [
        {"path": path.relative_to(run.path).as_posix(), "digest": digest_of(run, path, salt)}
        for path in certified_files(run)
    ]
