"""What a finished run left behind, read back from its directory.

Entries of the forget request are counted and never kept: a report must not name the people in it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..access import read_regular
from ..errors import RunDirError
from ..metrics import low_power_reason
from ..run_dir import RunDir, read_events
from ..yaml_text import YAMLError, read_yaml
from .measured import measured

ORIGINAL = "Original"
RETRAINED = "Retrained"
FINE_TUNE = "Fine-tune"
DLFD = "DLFD"
DLFM = "DLFM"
DLFD_OFFICIAL = "DLFD (authors' code)"
METHOD_LABELS = {
    "finetune": FINE_TUNE,
    "neggrad": "NegGrad",
    "neggrad_plus": "NegGrad+",
    "cf_k": "CF-k",
    "eu_k": "EU-k",
    "unsir": "UNSIR",
    "bad_teacher": "Bad Teacher",
    "scrub": "SCRUB",
    "salun": "SalUn",
    "ssd": "SSD",
    "l1_sparse": "l1-sparse",
    "reset": "Reset",
    "weight_distortion": "Weight Distortion",
    "weight_dist_reg": "Weight Dist Reg",
    "gli": "GLI",
    "fcs": "FCS",
    "ct": "CT",
    "msg": "MSG",
    "amun": "AMUN",
    "rewind": "Rewind",
    "dlfd_official": DLFD_OFFICIAL,
    "dlfd": DLFD,
    "dlfm": DLFM,
}
ROLE_LABELS = {"original": ORIGINAL, "retrained": RETRAINED}

COST = ("wall_seconds", "device_seconds", "peak_memory_mb")


@dataclass(frozen=True)
class RequestCounts:
    """How many people and images a forget request stands for."""

    lines: int
    people: int
    """people with images that were trained on"""
    single_images: int
    """lines that name one image that was trained on"""
    images: int
    """training images of all lines"""
    outside: int
    """lines that are known but were never trained on"""


@dataclass(frozen=True)
class RunRecord:
    """One finished run; per-sample tensors are read from disk when asked for."""

    path: Path
    label: str
    seed: int
    train_seed: int
    """seed of the trained model: the run's own, where no comparison says another"""
    config: dict[str, Any]
    signature: str
    inputs: dict[str, str]
    result: dict[str, Any]
    probes: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    request: RequestCounts | None
    starts: tuple[dict[str, Any], ...] = ()
    """when, by which code and on what it was started; empty in older runs"""

    @property
    def request_digest(self) -> str:
        """SHA-256 of the images to forget; empty where the run does not tell."""
        return self.inputs.get("request", "")

    @property
    def metrics_seed(self) -> int:
        """The evaluation seed."""
        return int(self.config.get("metrics", {}).get("seed", 0))

    @property
    def unlearned(self) -> bool:
        return self.config["verb"] == "unlearn"

    @property
    def mia(self) -> dict[str, Any]:
        """The attack's figures; empty where nobody was forgotten."""
        return self.result.get("mia") or {}

    def value(self, metric: str) -> float | None:
        """Return one measured number, such as `nomus` or `mia_auc`; None where there is none.

        A model that was not back in metrics.relearn_steps counts as back in that many.
        """
        value = measured(self.result, metric)
        if value is None and metric == "relearn_steps" and self.relearns_late:
            return self.result["relearn"]["max_steps"]
        return value

    @property
    def relearns_late(self) -> bool:
        """Whether relearning was tried and the model was not back in the steps given."""
        return "relearn" in self.result and self.result["relearn_steps"] is None

    @property
    def low_power(self) -> str:
        """What the attack could have missed, where that is much."""
        least = self.mia.get("detectable_auc")
        if least is None:
            return ""
        return low_power_reason(
            least, self.mia["num_member_people"], self.mia["num_nonmember_people"]
        )

    @property
    def over_forgetting(self) -> dict[str, Any]:
        """The other side of the attack; empty where nobody was forgotten, and in older runs."""
        return self.result.get("over_forgetting") or {}

    def tensor(self, name: str) -> np.ndarray | None:
        """Return one tensor of samples.safetensors, such as `forget.loss`; None if it has none."""
        return _tensor(RunDir(self.path).samples, name)

    def require(self, name: str) -> np.ndarray:
        """Return one tensor of samples.safetensors; RunDirError says that it is not there."""
        tensor = self.tensor(name)
        if tensor is None:
            raise RunDirError(f"{RunDir(self.path).samples} has no '{name}'.")
        return tensor

    def synthesised(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return kept (original, synthesised) uint8 images, each (n, 3, S, S); None if none."""
        file = RunDir(self.path).synthesis / "images.safetensors"
        original, changed = _tensor(file, "original"), _tensor(file, "synthesised")
        if original is None or changed is None or not len(original):
            return None
        return original, changed


@dataclass(frozen=True)
class Comparison:
    """The finished runs of a comparison, and a sentence for each that is not there."""

    title: str
    records: list[RunRecord]
    missing: list[str]
    tuning: dict[str, Any] | None = None
    """trials, seed, pairs of seeds, objective, and per method what was searched and chosen"""
    contrasts: dict[str, Any] | None = None
    """which pairs of labels were named before the runs, and the margin of a tie; None of reports
    of single runs and of older comparisons, which take the defaults"""


def _tensor(file: Path, name: str) -> np.ndarray | None:
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as tensors:
            return tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
    except SafetensorError as err:
        raise RunDirError(f"{file} cannot be read: {err}.") from err


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise RunDirError(f"{file} cannot be read: {err}.") from err


def _read_starts(run: RunDir) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(run.read_starts())
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise RunDirError(f"{run.environment} cannot be read: {err}.") from err


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = read_yaml(read_regular(file).decode())
    except (OSError, YAMLError) as err:
        raise RunDirError(f"{file} cannot be read: {err}.") from err
    if not isinstance(config, dict) or "verb" not in config:
        raise RunDirError(f"{file} is not the configuration of a run: it names no verb.")
    for name, kind in (("seed", int), ("train", dict), ("method", dict), ("metrics", dict)):
        if name in config and type(config[name]) is not kind and config[name] is not None:
            raise RunDirError(
                f"{file} is not the configuration of a run: {name}={config[name]!r} is no "
                f"{'whole number' if kind is int else 'section of settings'}."
            )
    section, name = {"train": ("train", "on"), "unlearn": ("method", "name")}.get(
        str(config["verb"]), ("", "")
    )
    if section and name not in (config.get(section) or {}):
        raise RunDirError(f"{file} is not the configuration of a run: it has no {section}.{name}.")
    return config


def _read_request(file: Path) -> RequestCounts | None:
    if not file.is_file():
        return None
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    kinds = [row["kind"] for row in rows if int(row["num_images"]) > 0]
    return RequestCounts(
        lines=len(rows),
        people=kinds.count("identity"),
        single_images=kinds.count("image"),
        images=sum(int(row["num_images"]) for row in rows),
        outside=sum(row["status"] != "matched" for row in rows),
    )


def label_of(name: str) -> str:
    """Return what a method, or `method variant`, is called in tables and figures."""
    method, _, variant = name.partition(" ")
    return _with_variant(METHOD_LABELS.get(method, method), variant)


def _with_variant(label: str, variant: str) -> str:
    return f"{label} ({variant.replace(' ', ', ')})" if variant else label


def _label(config: dict[str, Any]) -> str:
    if config["verb"] == "train":
        return ORIGINAL if config["train"]["on"] == "all" else RETRAINED
    if config["verb"] == "unlearn":
        name = config["method"]["name"]
        return METHOD_LABELS.get(name, str(name))
    return "Evaluated"


def load_run(path: Path | str) -> RunRecord:
    """Read one finished run directory; RunDirError says in one sentence why it cannot be."""
    run = RunDir(Path(path))
    if not run.path.is_dir():
        raise RunDirError(f"{run.path} is not a run directory: there is no such directory.")
    if not run.config.is_file():
        raise RunDirError(f"{run.path} is not a run directory: it has no {run.config.name}.")
    if not run.finished():
        raise RunDirError(
            f"{run.path} is not a finished run, it has no {run.result.name}: "
            "give the command that started it once more to resume it."
        )
    config = _read_config(run.config)
    seed = config.get("seed") or 0
    identity = _read_json(run.identity) if run.identity.is_file() else {}
    events = read_events(run.metrics)
    return RunRecord(
        path=run.path,
        label=_label(config),
        seed=seed,
        train_seed=seed,
        config=config,
        signature=identity.get("signature", ""),
        inputs=identity.get("inputs", {}),
        result=_read_json(run.result),
        probes=[e for e in events if e.get("event") == "probe"],
        steps=[e for e in events if e.get("event") == "step"],
        epochs=[e for e in events if e.get("event") == "epoch"],
        request=_read_request(run.request),
        starts=_read_starts(run),
    )


def read_comparison(path: Path | str) -> Comparison:
    """Read a comparison directory; runs that are missing or unfinished are named, not fatal."""
    file = Path(path) / "comparison.json"
    if not file.is_file():
        raise RunDirError(f"{path} is not a comparison directory: it has no {file.name}.")
    content = _read_json(file)
    records, missing = [], []
    for run in content.get("runs", []):
        try:
            record = load_run(file.parent / run["run_dir"])
            if record.config["verb"] == "evaluate":
                record = _of_training(record, run["role"])
            label = _with_variant(record.label, run.get("variant", ""))
            train_seed = run.get("train_seed", record.seed)
            # The seed of a trained model's row is that of the people drawn.
            seed = run.get("seed", record.seed)
            records.append(replace(record, label=label, train_seed=train_seed, seed=seed))
        except RunDirError:
            missing.append(_missing_name(run))
    title = content.get("title") or "Comparison"
    return Comparison(title, records, missing, content.get("tuning"), content.get("contrasts"))


def _of_training(record: RunRecord, role: str) -> RunRecord:
    """Return a further measurement of a trained model as one of its runs: it cost no training."""
    figures = {name: value for name, value in record.result.items() if name not in COST}
    return replace(record, label=ROLE_LABELS[role], result=figures)


def _missing_name(run: dict[str, Any]) -> str:
    variant = run.get("variant", "")
    label = ROLE_LABELS.get(run["role"]) or label_of(f"{run['method']} {variant}".strip())
    train_seed = run.get("train_seed", run["seed"])
    trained = "" if train_seed == run["seed"] else f" on train seed {train_seed}"
    return f"{label}, seed {run['seed']}{trained} ({Path(run['run_dir']).name})"


def load_comparison(path: Path | str) -> list[RunRecord]:
    """Return the finished runs of a comparison directory."""
    return read_comparison(path).records


def load_with_references(path: Path | str) -> list[RunRecord]:
    """Return a run, preceded by the runs that its checkpoint and reference came from, if kept."""
    run = load_run(path)
    records = (_run_of(run.config.get(setting)) for setting in ("checkpoint", "reference"))
    return [*(record for record in records if record is not None), run]


def _run_of(checkpoint: str | None) -> RunRecord | None:
    """Return the finished run that a checkpoint setting points to or into."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    return next((load_run(p) for p in (path, *path.parents[:3]) if _is_finished_run(p)), None)


def _is_finished_run(path: Path) -> bool:
    run = RunDir(path)
    return run.finished() and run.config.is_file()


def of_label(records: Sequence[RunRecord], label: str) -> list[RunRecord]:
    return [record for record in records if record.label == label]
