"""Ensemble audits by `dlfd audit`, and our U-LiRA and KLoM against public implementations.

    python -m benchmarks.audit --name orl [--out DIR] [key=value ...]
    python -m benchmarks.audit --name ck48 --data-root PATH [--out DIR] [key=value ...]
    python -m benchmarks.audit --check EVAL_PY METRIC_PY

The first two audit Fine-tune, SCRUB, DLFD and DLFM against Retrained; a run that was interrupted
goes on. PATH holds metadata.csv (image_path, identity, label). --check compares numbers on one
small case with unlearning_bench/eval.py of RoyRin/data-unlearning-bench and metric.py of
google-deepmind/unlearning_evaluation, which are imported from where they lie. Written:
benchmarks/results/audit_<name>_<hardware>_<date>.md; numbers, no images, no names.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlfd_dist.errors import DlfdError
from dlfd_dist.metrics import klom, logit_scaled_confidence
from dlfd_dist.metrics.told_apart import Ranking
from dlfd_dist.report.audit import (
    judgement,
    klom_table,
    label,
    markdown,
    notes,
    rmia_table,
    ulira_table,
)
from launch.verbs.audit import run_audit

COMMON = [
    "method=finetune,scrub,dlfd,dlfm", "method.epochs=2", "method.select=nomus",
    "method.probe_every=3", "forget.fraction=0.5", "audit.models=16", "data.augment=none",
    "metrics.num_bootstrap=100",
]  # fmt: skip
SETTINGS = {
    "orl": ["data=orl", "data.image_size=24", "train.epochs=10", *COMMON],
    "ck48": ["data=manifest", "data.image_size=48", "train.epochs=10", *COMMON],
}
RESULTS = Path(__file__).parent / "results"
NUM_MODELS, NUM_IMAGES, NUM_CLASSES = 32, 50, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=sorted(SETTINGS), default="orl")
    parser.add_argument("--data-root", help="needed unless the data set comes with the project")
    parser.add_argument("--out", default="runs/audit-benchmark")
    parser.add_argument("--check", nargs=2, type=Path, metavar=("EVAL_PY", "METRIC_PY"))
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    if args.check:
        store("reference", "EVAL_PY METRIC_PY", check(*args.check))
        return
    given = {s.split("=", 1)[0] for s in args.settings}
    kept = [s for s in SETTINGS[args.name] if s.split("=", 1)[0] not in given]
    settings = [*kept, *args.settings]
    paths = [f"run.dir={args.out}"] + ([f"data.root={args.data_root}"] if args.data_root else [])
    try:
        run_audit(["ulira", *settings, *paths], dry_run=False, as_json=False)
    except DlfdError as err:
        sys.exit(f"{parser.prog}: {err}")
    words = ["--data-root PATH"] * bool(args.data_root) + args.settings
    result = json.loads((Path(args.out) / "audit.json").read_text())
    store(args.name, " ".join(words), f"Settings: `{' '.join(settings)}`\n\n{audited(result)}")


def store(name: str, arguments: str, text: str) -> None:
    """Write a result file: the command, the machine, and what was found."""
    today, cores = datetime.date.today().isoformat(), len(os.sched_getaffinity(0))
    path = RESULTS / f"audit_{name}_cpu{cores}_{today}.md"
    versions = ", ".join(
        f"{n} {importlib.metadata.version(n)}" for n in ("torch", "numpy", "scipy")
    )
    option = "--check" if name == "reference" else f"--name {name}"
    path.write_text(
        f"# Ensemble audit: {name}\n\n"
        f"`{' '.join(['python -m benchmarks.audit', option, *arguments.split()])}`\n\n"
        f"{platform.machine()}, {cores} cores, python {platform.python_version()}, {versions}.\n\n"
        f"{text}\n"
    )
    print(f"written: {path}")


def audited(result: dict[str, Any]) -> str:
    """Return the tables of an audit, what they say, and what it cost."""
    cost = result["cost"]
    rows = [[label(title), *(f"{one[k]:.0f}" for k in sorted(one))] for title, one in cost.items()]
    total = [sum(one[k] for one in cost.values()) for k in ("device_seconds", "wall_seconds")]
    rows.append(["all", *(f"{value:.0f}" for value in total)])
    parts = [
        "\n".join(f"- {line}" for line in judgement(result)),
        markdown(ulira_table(result)),
        "RMIA:",
        markdown(rmia_table(result)),
        markdown(klom_table(result)),
        "\n".join(f"- {line}" for line in notes(result)),
        f"Cost, summed over {result['settings']['models']} shadow models:",
        markdown((["", "device seconds", "wall seconds"], rows)),
        *(f"Not finished: {name}" for name in result["missing"]),
    ]
    return "\n\n".join(parts)


# --- against public implementations


def check(eval_py: Path, metric_py: Path) -> str:
    """Return how far our figures are from theirs on random logits of two worlds of models."""
    # All that their eval.py takes from their package is three folders.
    folders = types.ModuleType("unlearning_bench.paths")
    folders.__dict__.update(EVAL_DIR=None, DATA_DIR=None)
    sys.modules |= {"unlearning_bench": types.ModuleType("x"), folders.__name__: folders}
    theirs, metric = _imported(eval_py), _imported(metric_py)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, NUM_IMAGES)
    shape = (NUM_MODELS, NUM_IMAGES, NUM_CLASSES)
    logits = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    logits[0][:, np.arange(NUM_IMAGES), labels] += 2.0
    own, other = (np.array([logit_scaled_confidence(m, labels) for m in w]) for w in logits)

    margins = [
        theirs.get_margins_from_multimodel_logits(
            torch.from_numpy(w), torch.from_numpy(labels), device="cpu"
        ) for w in logits
    ]  # fmt: skip
    # The order of their run.py, whose first argument is the oracle.
    distances = theirs.kl_from_margins(margins[1], margins[0])
    confidences = [metric.compute_logit_scaled_confidence(m.copy(), labels)[1] for m in logits[0]]
    rows = [
        ["margin", "eval.py", _gap(margins[0].numpy(), own)],
        ["KLoM per image", "eval.py", _gap(distances, klom.klom(other, own))],
        ["logit-scaled confidence", "metric.py", _gap(np.array(confidences), own)],
        ["TPR and FPR at its thresholds", "metric.py", _rates_gap(metric, own, other)],
    ]
    facts = "\n".join(
        f"- `{path.name}`: SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        for path in (eval_py, metric_py)
    )
    return (
        f"{NUM_MODELS} models a world, {NUM_IMAGES} images, {NUM_CLASSES} classes, random logits; "
        f"mean KLoM {np.mean(distances):.3f} nats.\n\n{facts}\n\n"
        + markdown((["Figure", "Theirs", "largest difference"], rows))
        + "\n\nmetric.py has no likelihood ratio: it judges by thresholds on one image's "
        "confidences; the fits of U-LiRA are checked against scipy in tests/unit."
    )


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _gap(theirs: np.ndarray, ours: np.ndarray) -> str:
    return f"{np.abs(theirs - ours).max():.1e}"


def _rates_gap(metric: Any, own: np.ndarray, other: np.ndarray) -> str:
    """Return how far our ROC is from their single-threshold rates, over all images."""
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    worst = 0.0
    for image in range(NUM_IMAGES):
        columns = own[:, image], other[:, image]
        tpr, _, fpr, *_ = metric._get_single_threshold_rates(*map(torch.from_numpy, columns))
        curve = Ranking(*(c[:, None] for c in columns)).roc()
        points = np.c_[fpr.numpy(), tpr.numpy()][:, None] - np.c_[curve[0], curve[1]][None]
        # Each of their points must be one of ours.
        worst = max(worst, float(np.abs(points).max(-1).min(-1).max()))
    return f"{worst:.1e}"


if __name__ == "__main__":
    main()
