"""Complete run directories from seeded random numbers, as the jobs would leave them behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from dlfd_dist.config import (
    METHOD_CONFIGS,
    DataConfig,
    ForgetConfig,
    JobConfig,
    TrainConfig,
    to_dict,
)

SIZES = {"retain": 240, "forget": 60, "val": 90, "test": 90}
IDENTITIES = ("Wilhelmina-Featherstone", "Bartholomew-Quigley", "archive/Zenobia Ash, 1987.png")

# Per role: retain, forget, val and test accuracy; attack accuracy; mean log loss on forget, unseen.
_ROLES: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "original": (0.985, 0.975, 0.72, 0.715, 0.682, -4.2, -1.1),
    "retrained": (0.980, 0.705, 0.70, 0.705, 0.545, -1.2, -1.1),
    "finetune": (0.985, 0.935, 0.71, 0.712, 0.640, -3.2, -1.1),
    "dlfd": (0.930, 0.715, 0.69, 0.690, 0.528, -0.9, -0.8),
    "dlfd_official": (0.930, 0.715, 0.69, 0.690, 0.528, -0.9, -0.8),
    "dlfm": (0.960, 0.720, 0.70, 0.700, 0.532, -1.1, -1.0),
    "neggrad": (0.890, 0.405, 0.64, 0.630, 0.570, 0.4, -0.7),
    "neggrad_plus": (0.940, 0.640, 0.67, 0.670, 0.555, -0.6, -0.9),
    "cf_k": (0.985, 0.960, 0.71, 0.710, 0.665, -3.6, -1.1),
    "eu_k": (0.975, 0.900, 0.69, 0.695, 0.625, -2.9, -1.0),
    "unsir": (0.910, 0.690, 0.65, 0.655, 0.545, -0.8, -0.8),
    "bad_teacher": (0.920, 0.600, 0.66, 0.660, 0.560, -0.2, -0.8),
    "scrub": (0.960, 0.750, 0.70, 0.695, 0.560, -1.3, -1.0),
    "salun": (0.950, 0.660, 0.68, 0.685, 0.550, -0.7, -0.9),
    "ssd": (0.940, 0.850, 0.68, 0.680, 0.610, -2.4, -1.0),
    "l1_sparse": (0.975, 0.900, 0.70, 0.705, 0.630, -2.9, -1.0),
    "reset": (0.940, 0.730, 0.68, 0.690, 0.548, -1.2, -1.0),
    "weight_distortion": (0.960, 0.860, 0.69, 0.700, 0.600, -2.3, -1.0),
    "weight_dist_reg": (0.970, 0.890, 0.70, 0.700, 0.620, -2.7, -1.0),
    "gli": (0.940, 0.760, 0.69, 0.690, 0.540, -1.3, -0.9),
    "fcs": (0.930, 0.640, 0.67, 0.670, 0.560, -0.5, -0.8),
    "ct": (0.950, 0.800, 0.68, 0.690, 0.570, -1.8, -1.0),
    "msg": (0.950, 0.790, 0.69, 0.690, 0.565, -1.7, -1.0),
    "amun": (0.960, 0.770, 0.70, 0.700, 0.550, -1.4, -1.0),
    "rewind": (0.970, 0.820, 0.70, 0.705, 0.580, -1.9, -1.1),
}


def _config(role: str, seed: int, original: Path) -> JobConfig:
    common: dict[str, Any] = {
        "seed": seed,
        "data": DataConfig(name="synthetic", root="/home/someone/private"),
        "forget": ForgetConfig(request="/home/someone/people-who-left.txt"),
    }
    if role in ("original", "retrained"):
        train = TrainConfig(on="all" if role == "original" else "retain", epochs=12)
        return JobConfig(verb="train", train=train, **common)
    method = METHOD_CONFIGS[role](name=role, lr=1e-3, probe_every=5, select="nomus")
    return JobConfig(verb="unlearn", checkpoint=str(original), method=method, **common)


def _features(rng: np.random.Generator, labels: np.ndarray, tight: bool) -> np.ndarray:
    centres = np.random.default_rng(7).normal(0, 2.0, (3, 16))
    return centres[labels] + rng.normal(0, 0.6 if tight else 1.3, (len(labels), 16))


def _logits(rng: np.random.Generator, labels: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return logits of three classes with these losses."""
    right, share = np.exp(-loss), rng.uniform(0.2, 0.8, len(loss))
    others = np.stack([right, (1 - right) * share, (1 - right) * (1 - share)], 1)
    return np.take_along_axis(np.log(others), (np.arange(3) - labels[:, None]) % 3, 1)


def _samples(rng: np.random.Generator, role: str) -> dict[str, np.ndarray]:
    *_, forget_loss, unseen_loss = _ROLES[role]
    centres = {"retain": -4.0, "forget": forget_loss, "val": unseen_loss, "test": unseen_loss}
    tensors, first = {}, 0
    for part, num in SIZES.items():
        labels = np.random.default_rng(first).integers(0, 3, num)
        loss = np.exp(rng.normal(centres[part], 1.5, num)).clip(1e-6, 12)
        tight = centres[part] < -2
        tensors[f"{part}.ids"] = np.arange(first, first + num)
        tensors[f"{part}.loss"] = loss.astype(np.float32)
        tensors[f"{part}.confidence"] = -np.log(np.expm1(loss)).astype(np.float32)
        tensors[f"{part}.labels"] = labels
        tensors[f"{part}.logits"] = _logits(rng, labels, loss).astype(np.float32)
        tensors[f"{part}.person"] = first + np.arange(num) // 3
        tensors[f"{part}.features"] = _features(rng, labels, tight).astype(np.float32)
        first += num
    tensors["forget.person"] = 1000 + np.arange(SIZES["forget"]) // 15
    return tensors


def moved_by(weights: float, bits: float, **changes: Any) -> dict[str, Any]:
    """Return what a run tells of how far it moved its model."""
    parts = dict.fromkeys(("retain", "forget", "val"))
    return {
        "weight_change": {"overall": weights, "blocks": {"head": weights}},
        "divergence": {part: bits for part in parts},
        "same_answers": {part: 0.8 for part in parts},
        "confidence_change": {part: -0.01 for part in parts},
        "logit_change": {part: -0.05 for part in parts},
        "retain_images": SIZES["retain"],
        "synthesised_share": None,
        "left_as_is": False,
        "only_confidence": False,
        "reason": "",
        "rf_js": 0.02,
        "rf_js_original": 0.1,
    } | changes


def _result(rng: np.random.Generator, role: str, seed: int, **changes: Any) -> dict[str, Any]:
    noisy = [float(v + rng.normal(0, 0.006)) for v in _ROLES[role][:5]]
    retain, forget, val, test, attack = noisy
    score = abs(attack - 0.5)
    auc = 0.5 + 1.25 * (attack - 0.5)
    floor = role.startswith("dlfd")
    unlearned = role not in ("original", "retrained")
    result = {
        "retain_accuracy": min(1.0, retain),
        "forget_accuracy": min(1.0, forget),
        "val_accuracy": val,
        "test_accuracy": test,
        "mia": {
            "accuracy": attack,
            "auc": auc,
            "tpr_at_1pct": max(0.0, 0.4 * (attack - 0.5)),
            "tpr_at_01pct": 0.0,
            "interval": [attack - 0.045, attack + 0.045],
            "auc_interval": [auc - 0.05, auc + 0.05],
            "floor": floor,
            "floor_reason": "The interval of its accuracy holds 0.5." if floor else "",
            "num_members": SIZES["forget"],
            "num_nonmembers": SIZES["forget"],
            "num_member_people": 20,
            "num_nonmember_people": 30,
            "attack": "confidence",
            "attacks": {},
            "within_labels": False,
            "p_value": 0.3 if floor else 0.005,
        },
        "mia_paper": attack + 0.02,
        "over_forgetting": {
            "flag": role == "neggrad",
            "tail_share": 0.2 if role == "neggrad" else 0.04,
            "expected_share": 0.05,
            "p_value": 1e-6 if role == "neggrad" else 0.7,
            "median_difference": 0.4 if role == "neggrad" else -0.1,
            "reason": "Many losses lie in the tail." if role == "neggrad" else "",
        },
        "separation": {
            "silhouette": 0.2 * test,
            "linear_probe_accuracy": test + 0.02,
            "scatter_ratio": 0.6 * test,
        },
        "validation": {
            "accuracy": val,
            "forgetting_score": score,
            "mia_auc": auc,
            "nomus": (val + 1 - 2 * score) / 2,
        },
        "salun_mia": 1 - forget,
        "alike": {"flag": False, "share": 0.4, "right_share": 0.35, "reason": ""},
        "against_original": moved_by(0.05, 0.1) if unlearned else None,
        "without_retrained": {
            "verdict": "gone" if floor else "still there",
            "reason": "The attack says so.",
            "figures": {
                name: {
                    "value": value,
                    "interval_90": [value - 0.04, value + 0.04],
                    "within": floor,
                    "apart": not floor,
                }
                for name, value in (("accuracy", attack), ("auc", auc))
            },
            "num_people": [20, 30],
            "margin": 0.05,
        },
        "forgetting_score": score,
        "nomus": (test + 1 - 2 * score) / 2,
        "gap_to_retrained": None if role == "retrained" else abs(attack - 0.545) / 2 + 0.02,
        "wall_seconds": 14.0 + seed if role in ("original", "retrained") else 3.5 + 0.2 * seed,
        "device_seconds": 28.0 + 2 * seed,
        "peak_memory_mb": 812.0,
        "seed": seed,
        "world_size": 2,
        "title": "Synthetic faces, 3 expressions",
        "may_show": True,
        "synthetic": True,
        "credit": "Faces drawn by dlfd-dist; no real persons.",
        "label_names": ["neutral", "smile", "surprise"],
        "image_size": 48,
        "num_images": dict(SIZES),
        "selected_step": 30 if role.startswith("dlfd") else None,
        "selection": "Step 30: best NoMUS on validation." if floor else "Last step.",
    }
    return {**result, **changes}


def _probes(rng: np.random.Generator, role: str, separation: bool = False) -> list[dict[str, Any]]:
    start, end = _ROLES["original"][4] - 0.5, _ROLES[role][4] - 0.5
    events = []
    for step in range(0, 45, 5):
        decay = np.exp(-step / 9)
        score = float(abs(end + (start - end) * decay + rng.normal(0, 0.013)))
        accuracy = float(0.72 - 0.03 * (1 - decay) + rng.normal(0, 0.004))
        event = {
            "event": "probe",
            "step": step,
            "val_accuracy": accuracy,
            "forgetting_score": score,
            "mia_auc": 0.5 + 1.25 * score,
            "nomus": (accuracy + 1 - 2 * score) / 2,
        }
        if role.startswith("dlfd"):
            event["synthesis"] = score > 0.05
        if separation:
            left = decay if role == "neggrad" else 1.0
            numbers = {"silhouette": 0.2, "linear_probe_accuracy": 0.7, "scatter_ratio": 0.5}
            event |= {k: float(v * left + rng.normal(0, 0.004)) for k, v in numbers.items()}
        events.append(event)
    return events


def _epochs(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "event": "epoch",
            "epoch": epoch,
            "step": epoch * 10,
            "train_loss": float(1.2 * np.exp(-epoch / 4) + abs(rng.normal(0, 0.02))),
            "val_accuracy": float(0.71 - 0.35 * np.exp(-epoch / 3) + rng.normal(0, 0.01)),
            "lr": 0.02,
        }
        for epoch in range(1, 13)
    ]


def _face(rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """Return a drawn face, uint8 (3, size, size)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.ones((3, size, size)) * rng.uniform(0.55, 0.9, (3, 1, 1))
    skin = np.array([0.9, 0.72, 0.6])[:, None] * rng.uniform(0.6, 1.05)
    image[:, (x / 0.62) ** 2 + (y / 0.8) ** 2 < 1] = skin
    for side in (-0.25, 0.25):
        image[:, ((x - side) / 0.09) ** 2 + ((y + 0.2) / 0.07) ** 2 < 1] = 0.12
    mouth = np.abs(y - 0.38 + rng.uniform(-0.5, 0.5) * x**2) < 0.045
    image[:, mouth & (np.abs(x) < 0.28)] = np.array([0.7, 0.2, 0.25])[:, None]
    return (255 * image.clip(0, 1)).astype(np.uint8)


def _synthesis(rng: np.random.Generator, num: int = 8) -> dict[str, np.ndarray]:
    original = np.stack([_face(rng) for _ in range(num)])
    noise = np.repeat(np.repeat(rng.normal(0, 14, (num, 3, 12, 12)), 4, 2), 4, 3)
    changed = (original + noise).clip(0, 255).astype(np.uint8)
    return {"original": original, "synthesised": changed, "ids": np.arange(num)}


def _request() -> str:
    lines = ["line,entry,kind,status,num_images"]
    lines += [f"{i},{name},identity,matched,29" for i, name in enumerate(IDENTITIES[:2], start=1)]
    return "\n".join([*lines, f'3,"{IDENTITIES[2]}",image,matched,2']) + "\n"


def write_run(
    path: Path,
    role: str,
    *,
    seed: int = 0,
    train_seed: int | None = None,
    nobody: bool = False,
    separation: bool = False,
    **changes: Any,
) -> Path:
    """Write a finished run directory of a role: original, retrained, finetune, dlfd, ...

    `changes` replace entries of result.json; `nobody` leaves out everything about a forget set;
    `separation` puts the class separation into every probe.
    """
    train_seed = seed if train_seed is None else train_seed
    rng = np.random.default_rng([seed, list(_ROLES).index(role), train_seed])
    path.mkdir(parents=True)
    config = to_dict(_config(role, seed, path.parent / f"original-{train_seed}"))
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    inputs = {"data": "ab12" * 16, "request": "cd34" * 16}
    identity = {"signature": f"{rng.integers(2**32):08x}", "inputs": inputs}
    (path / "run.json").write_text(json.dumps(identity), encoding="utf-8")
    if nobody:
        unknown = (
            "mia", "mia_paper", "forgetting_score", "nomus", "nomus_paper", "forget_accuracy",
            "over_forgetting",
        )  # fmt: skip
        changes = dict.fromkeys(unknown) | {"num_images": {**SIZES, "forget": 0}} | changes
    else:
        (path / "request.csv").write_text(_request(), encoding="utf-8")
    samples = _samples(rng, role)
    kept = {n: v for n, v in samples.items() if not (nobody and n.startswith("forget."))}
    save_file(kept, path / "samples.safetensors")
    events = _epochs(rng) if role in ("original", "retrained") else _probes(rng, role, separation)
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    if role.startswith("dlfd"):
        (path / "synthesis").mkdir()
        save_file(_synthesis(rng), path / "synthesis" / "images.safetensors")
    result = _result(rng, role, seed, **changes)
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return path


def write_comparison(
    path: Path,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    train_seeds: tuple[int, ...] | None = None,
    methods: tuple[str, ...] = ("finetune", "dlfd"),
    unfinished: tuple[str, ...] = (),
    title: str = "Two people asked to be forgotten",
    tuning: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a comparison directory with its runs; those named `unfinished` have no result.

    With `train_seeds` every method runs on each of them with every seed.
    """
    planned = [(role, s, s) for s in train_seeds or seeds for role in ("original", "retrained")]
    for train_seed in train_seeds or seeds:
        of_training = seeds if train_seeds else (train_seed,)
        planned += [(role, train_seed, seed) for role in methods for seed in of_training]
    runs = []
    for role, train_seed, seed in planned:
        name = f"{role}-{seed}" if train_seeds is None else f"{role}-{train_seed}-{seed}"
        run = write_run(path / "runs" / name, role, seed=seed, train_seed=train_seed, **changes)
        if name in unfinished:
            (run / "result.json").unlink()
        kind, method = ("method", role) if role in methods else (role, None)
        entry = {"role": kind, "method": method, "seed": seed, "run_dir": f"runs/{name}"}
        runs.append(entry | ({"train_seed": train_seed} if train_seeds else {}))
    content = json.dumps({"title": title, "runs": runs, "tuning": tuning})
    (path / "comparison.json").write_text(content, encoding="utf-8")
    return path
