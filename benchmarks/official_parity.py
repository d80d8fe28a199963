"""method=dlfd_official against the authors' own code, on the same images and weights.

    git clone https://github.com/Dasol-Choi/DLFD /tmp/dlfd_authors
    OMP_NUM_THREADS=1 python -m benchmarks.official_parity --authors /tmp/dlfd_authors

Runs their train_dlfd and our unlearning job side by side, prints what differs after every step and
how fast each is. `--write` records what their code gives in tests/records/dlfd_official.json, which
tests/e2e/test_official_parity.py holds ours to. Nothing of theirs is kept here; what their code
needs a GPU for is patched from outside.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dlfd_dist.compose import compose_job
from dlfd_dist.config import JobConfig, ModelConfig
from dlfd_dist.data.loaders import Batches
from dlfd_dist.jobs import prepare, run_job
from dlfd_dist.jobs.models import DTYPES, make_model
from dlfd_dist.methods import MethodContext, StepBatch, Updater, methods
from dlfd_dist.models import Classifier
from dlfd_dist.models.backbones import backbones
from dlfd_dist.models.heads import RowDropout
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag

RECORD = Path(__file__).resolve().parents[1] / "tests" / "records" / "dlfd_official.json"

State = dict[str, Tensor]


# --- the case: images, the original model, the settings of the run ---------------------------


@dataclass(frozen=True)
class Case:
    """One comparison; sizes are chosen so that batches of 8 come out uneven.

    51 retain and 28 forget images make the pairs 8/8 8/8 8/8 8/4 8/8 8/8 3/8: five updates.
    """

    model: str
    dtype: str
    forget_threshold: float
    max_forgetting_score: float
    lr: float
    step_size: float
    original_epochs: int
    original_lr: float
    dropout: float = 0.5

    @property
    def title(self) -> str:
        return f"{self.model}, {self.dtype}, dropout {self.dropout:g}"


PEOPLE = {"retain": 51, "forget": 28, "val": 28, "test": 12}
NUM_CLASSES = 3
WRONG_LABELS = 0.3
# The thresholds lie between scores that occur, so that some steps synthesise and some do not.
# Recorded is the one in float64, where no sign of a gradient hangs on rounding, without dropout,
# whose masks may differ between builds of torch.
RECORDED = Case(
    "tiny_conv", "float64", forget_threshold=0.1, max_forgetting_score=0.1, dropout=0.0,
    lr=0.01, step_size=0.1, original_epochs=15, original_lr=0.05,
)  # fmt: skip
TINY = Case(
    "tiny_conv", "float32", forget_threshold=0.09, max_forgetting_score=0.09,
    lr=0.03, step_size=0.1, original_epochs=40, original_lr=0.1,
)  # fmt: skip
RESNET = Case(
    "resnet18", "float32", forget_threshold=0.14, max_forgetting_score=0.12,
    lr=0.008, step_size=0.4, original_epochs=12, original_lr=0.02,
)  # fmt: skip
CASES = [RECORDED, TINY, RESNET]


def tiny_conv(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """Return two convolutions with BatchNorm: milliseconds a step, every kind of layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16)):
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), 16


@contextlib.contextmanager
def tiny_conv_known() -> Iterator[None]:
    with mock.patch.dict(backbones._entries, {"tiny_conv": tiny_conv}):
        yield


def write_images(root: Path, seed: int = 0) -> None:
    """Write blotches in NUM_CLASSES hues with many wrong labels, to be learnt by heart alone."""
    rng = np.random.default_rng(seed)
    rows = []
    for part, num in PEOPLE.items():
        for k in range(num):
            label = int(rng.integers(NUM_CLASSES))
            coarse = rng.integers(0, 200, (8, 8, 3))
            coarse[..., label % 3] += 30
            if rng.random() < WRONG_LABELS:
                label = int(rng.integers(NUM_CLASSES))
            pixels = np.kron(coarse, np.ones((4, 4, 1), dtype=int)) + rng.integers(
                0, 12, (32, 32, 3)
            )
            name = f"{part}_{k:02d}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
            split = "train" if part in ("retain", "forget") else part
            rows.append([name, f"{part}{k}", label, split])
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image_path", "identity", "label", "split"], *rows])
    names = [row[0] for row in rows if row[0].startswith("forget")]
    (root / "request.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def job_config(case: Case, root: Path, verb: str, *overrides: str) -> JobConfig:
    return compose_job(
        verb,
        [
            "method=dlfd_official", "data=manifest", f"data.root={root}", "data.image_size=32",
            f"forget.request={root / 'request.txt'}", f"model.name={case.model}",
            "model.head=mlp", f"model.dropout={case.dropout}",
            f"runtime.dtype={case.dtype}", "runtime.device=cpu", "runtime.threads_per_rank=1",
            "metrics.num_bootstrap=20", "metrics.resurface_steps=0", "train.global_batch_size=8",
            "seed=42",
            f"train.epochs={case.original_epochs}", f"train.lr={case.original_lr}",
            "method.global_batch_size=8", f"method.forget_threshold={case.forget_threshold}",
            f"method.max_forgetting_score={case.max_forgetting_score}", "synthesis.steps=5",
            f"synthesis.step_size={case.step_size}", f"method.lr={case.lr}",
            "method.initial_retain_weight=0.5", *overrides,
        ],
    )  # fmt: skip


def make_case(case: Case, root: Path) -> JobConfig:
    """Write the images, train the original model and return the configuration of the run."""
    root.mkdir(parents=True)
    write_images(root)
    run_dir = root / "original"
    # The record starts from the best epoch of the original model.
    training = job_config(case, root, "train", "train.select=best", f"run.dir={run_dir}")
    run_job(training, Collectives(), StopFlag())
    overrides = [f"checkpoint={run_dir}", f"run.dir={root / 'unlearned'}"]
    return job_config(case, root, "unlearn", *overrides)


# --- what is compared -------------------------------------------------------------------------


@dataclass
class Trace:
    """What happened in the steps that moved the weights, and which weights were kept."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    best: State = field(default_factory=dict)
    best_step: int | None = None


class Recorder:
    """Notes the input and the weights of every update; the same hooks for both codes."""

    def __init__(self, trace: Trace, kind: type[nn.Module]):
        self.trace = trace
        self.kind = kind
        self.seen: tuple[nn.Module, Tensor] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        handles = [
            nn.modules.module.register_module_forward_pre_hook(self._input),
            register_optimizer_step_post_hook(self._update),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, self.kind) and torch.is_grad_enabled():
            self.seen = module, inputs[0].detach().clone()

    def _update(self, *_: Any) -> None:
        assert self.seen is not None
        model, images = self.seen
        state = {ours(name): value.clone() for name, value in model.state_dict().items()}
        self.trace.steps.append({"images": images, "state": state})


def ours(name: str) -> str:
    """Return our name of one of the authors' parameters."""
    for theirs, own in (("base_model.", "backbone."), ("features.", "head.")):
        if name.startswith(theirs):
            return own + name.removeprefix(theirs)
    return name


def run_ours(config: JobConfig) -> Trace:
    """Run the unlearning job as a user would."""
    trace = Trace()
    with Recorder(trace, Classifier).watching():
        result = run_job(config, Collectives(), StopFlag())
    run_dir = RunDir(Path(config.run.dir or ""))
    events = read_events(run_dir.metrics)
    for kind in ("step", "probe"):
        found = [event for event in events if event["event"] == kind]
        for held, event in zip(trace.steps, found, strict=True):
            held |= event
    trace.best = load_file(run_dir.model)
    trace.best_step = result["selected_step"]
    return trace


# --- the authors' code, run from outside --------------------------------------------------------


@dataclass(frozen=True)
class Authors:
    """Their modules, imported from a checkout."""

    dlfd: ModuleType
    model: ModuleType


def load_authors(checkout: Path) -> Authors:
    sys.path.insert(0, str(checkout))
    try:
        return Authors(*(importlib.import_module(name) for name in ("unlearn.dlfd", "model")))
    finally:
        sys.path.pop(0)


class PlainModel(nn.Module):
    """A tiny_conv with a head of the authors' layers, answering with logits as theirs do."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.base_model = tiny_conv(ModelConfig(), 32)[0]
        layers = [
            nn.Dropout(layer.p) if isinstance(layer, RowDropout)
            else nn.ReLU(inplace=True) if isinstance(layer, nn.ReLU)
            else nn.Linear(layer.in_features, layer.out_features)
            for layer in model.module.head
        ]  # fmt: skip
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(torch.flatten(self.base_model(images), 1))


def their_model(authors: Authors, model: Classifier) -> nn.Module:
    """Return the authors' model with the weights of ours, in training mode as they load it."""
    plain = (
        PlainModel(model)
        if isinstance(model.module.backbone, nn.Sequential)
        else authors.model.ResNet(NUM_CLASSES)
    )
    state = model.state_dict()
    plain.load_state_dict({name: state[ours(name)] for name in plain.state_dict()})
    return plain.to(next(model.parameters()).dtype)


class Loader(list):
    """Batches in a list that knows which one was taken last.

    A DataLoader would draw its workers' seed from the generator that drops units on a CPU; on the
    authors' GPU these are two generators.
    """

    position = -1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for self.position, batch in enumerate(super().__iter__()):  # noqa: B020
            yield batch


def loaders(batches: Batches, size: int) -> dict[str, Loader]:
    splits = batches.data.splits
    parts = {"retain_test": splits.retain, "forget_test": splits.forget, "val": splits.val}
    return {
        name: Loader(batches.shard(ids[k : k + size]) for k in range(0, len(ids), size))
        for name, ids in parts.items()
    }


@contextlib.contextmanager
def on_cpu(authors: Authors) -> Iterator[None]:
    """Let code that says .cuda() run without a GPU, and silence its prints."""
    sinkhorn = authors.dlfd.sinkhorn
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda self: self),
        mock.patch.object(sinkhorn, "__defaults__", (50, "cpu")),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield


def run_theirs(authors: Authors, config: JobConfig, out: Path) -> Trace:
    """Run the authors' train_dlfd on the images and weights of our job."""
    batches, model = ingredients(config)
    data, trace = loaders(batches, config.method.global_batch_size), Trace()
    plain = their_model(authors, model)
    watched: dict[str, Callable[..., Any]] = {
        "calculate_accuracy": lambda found: {"val_accuracy": found["Acc"]},
        "MIA": lambda found: {"forgetting_score": found["Forgetting Score"]},
        "compute_ot_loss": lambda found: {"ot_cost": found.item()},
    }
    pending: dict[str, Any] = {}

    def watch(name: str) -> Any:
        original, read = getattr(authors.dlfd, name), watched[name]

        def call(*args: Any) -> Any:
            found = original(*args)
            if name == "compute_ot_loss":
                pending.update(read(found))
            else:
                trace.steps[-1].update(read(found))
            return found

        return mock.patch.object(authors.dlfd, name, call)

    def after_update(*_: Any) -> None:
        step = trace.steps[-1]
        step |= {"step": data["retain_test"].position + 1, "synthesised": bool(pending), **pending}
        pending.clear()

    save = torch.save

    def keep(state: State, path: Any, *args: Any) -> None:
        trace.best_step = trace.steps[-1]["step"]
        save(state, path, *args)

    with contextlib.ExitStack() as stack:
        stack.enter_context(on_cpu(authors))
        for name in watched:
            stack.enter_context(watch(name))
        stack.enter_context(mock.patch.object(torch, "save", keep))
        stack.enter_context(Recorder(trace, type(plain)).watching())
        handle = register_optimizer_step_post_hook(after_update)
        stack.callback(handle.remove)
        authors.dlfd.set_seed(config.seed)
        train_theirs(authors, config, plain, data, out)
    if trace.best_step is not None:
        found = torch.load(out, weights_only=True)
        trace.best = {ours(name): value for name, value in found.items()}
    return trace


def train_theirs(
    authors: Authors, config: JobConfig, plain: nn.Module, data: dict[str, Loader], out: Path
) -> None:
    cfg: Any = config.method
    optimizer = torch.optim.SGD(
        plain.parameters(), lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay
    )
    authors.dlfd.train_dlfd(
        plain, data, nn.CrossEntropyLoss(), optimizer, torch.device("cpu"),
        config.synthesis.steps, config.synthesis.step_size, cfg.forget_threshold,
        cfg.max_forgetting_score, cfg.initial_retain_weight, cfg.final_retain_weight,
        cfg.forget_weight, str(out),
    )  # fmt: skip


def ingredients(config: JobConfig) -> tuple[Batches, Classifier]:
    """Return the batches and the original model of a job."""
    prepared, dtype = prepare(config, 1), DTYPES[config.runtime.dtype]
    batches = Batches(prepared.data, config.data, collectives=Collectives(), dtype=dtype)
    return batches, make_model(config, prepared.data, config.checkpoint).to(dtype)


# --- comparison -------------------------------------------------------------------------------


def relative_difference(one: State, other: State) -> float:
    """Return the largest difference of two states, tensor by tensor relative to its norm."""
    assert one.keys() == other.keys()
    return max(
        float((one[k].double() - other[k].double()).norm() / other[k].double().norm().clamp(1e-9))
        for k in one
    )


def table(found: Trace, theirs: Trace) -> list[str]:
    """Return Markdown rows: what differs after every update, and in what was kept."""
    assert [s["step"] for s in found.steps] == [s["step"] for s in theirs.steps]
    lines = [
        "| batch | synthesised | images, max abs | weights, relative | OT cost, ours / theirs "
        "| val accuracy | forgetting score |",
        "|---|---|---|---|---|---|---|",
    ]
    for a, b in zip(found.steps, theirs.steps, strict=True):
        cells = [
            f"{a['step']}",
            pair("yes" if a["synthesised"] else "no", "yes" if b["synthesised"] else "no"),
            f"{float((a['images'] - b['images']).abs().max()):.1e}",
            f"{relative_difference(a['state'], b['state']):.1e}",
            pair(*(f"{s['ot_cost']:.6f}" if s["synthesised"] else "-" for s in (a, b))),
            pair(f"{a['val_accuracy']:.4f}", f"{b['val_accuracy']:.4f}"),
            pair(f"{a['forgetting_score']:.4f}", f"{b['forgetting_score']:.4f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    best = f"{relative_difference(found.best, theirs.best):.1e}" if theirs.best else "nothing kept"
    kept = pair(f"batch {found.best_step}", f"batch {theirs.best_step}")
    return [*lines, "", f"Best checkpoint: {kept}; weights, relative: {best}."]


def pair(one: str, other: str) -> str:
    return one if one == other else f"**{one} / {other}**"


def summary(trace: Trace) -> dict[str, Any]:
    """Return what the golden record keeps of a trace."""
    return {
        "steps": [
            {
                **{k: step[k] for k in ("step", "synthesised", "val_accuracy", "forgetting_score")},
                "ot_cost": step.get("ot_cost"),
                "images": tensor_summary(step["images"]),
                "state": state_summary(step["state"]),
            }
            for step in trace.steps
        ],
        "best_step": trace.best_step,
        "best": state_summary(trace.best),
    }


def tensor_summary(values: Tensor) -> list[float]:
    """Return norm, sum and three entries."""
    flat = values.double().flatten()
    picked = flat[[0, len(flat) // 2, -1]]
    return [float(flat.norm()), float(flat.sum()), *picked.tolist()]


def state_summary(state: State) -> dict[str, list[float]]:
    return {name: tensor_summary(value) for name, value in sorted(state.items())}


# --- speed ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seconds:
    wall: float
    cpu: float


def timed(run: Callable[[], None]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def steps_alone_theirs(authors: Authors, config: JobConfig, out: Path) -> Callable[[], None]:
    """Return their loop with its evaluations answered at once: synthesis in every step."""
    batches, model = ingredients(config)
    data = loaders(batches, config.method.global_batch_size)
    plain = their_model(authors, model)
    start = {name: value.clone() for name, value in plain.state_dict().items()}

    def run() -> None:
        plain.load_state_dict(start)
        with (
            on_cpu(authors),
            mock.patch.object(authors.dlfd, "calculate_accuracy", return_value={"Acc": 0.0}),
            mock.patch.object(authors.dlfd, "MIA", return_value={"Forgetting Score": 0.5}),
        ):
            train_theirs(authors, config, plain, data, out)

    return run


def steps_alone_ours(config: JobConfig, folder: Path) -> Callable[[], None]:
    """Return the same steps of our method, without probes."""
    batches, model = ingredients(config)
    data = loaders(batches, config.method.global_batch_size)
    retain, forget = data["retain_test"], data["forget_test"]
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def run() -> None:
        model.load_state_dict(start)
        updater = Updater(model, config.method, collectives=Collectives())
        context = MethodContext(
            config, model, lambda: model, Collectives(), len(retain),
            batches.data.manifest.num_outputs, batches.pixel_range, batches.to_uint8, folder,
            lambda: model,
        )  # fmt: skip
        method = methods.get(config.method.name)(context)
        for index, (images, labels) in enumerate(retain):
            forget_images, forget_labels = forget[index % len(forget)]
            if len(images) == len(forget_images):
                ids, size = torch.arange(len(images)), len(images)
                batch = StepBatch(
                    index,
                    0,
                    "unlearn",
                    ids,
                    images,
                    labels,
                    size,
                    ids,
                    forget_images,
                    forget_labels,
                    size,
                )
                method.step(batch, updater, stop=False)

    return run


def speed(authors: Authors, config: JobConfig, folder: Path, repeats: int) -> list[str]:
    """Return the lines of the speed comparison; the ratio is our time over theirs."""
    runs = {
        "ours": steps_alone_ours(config, folder),
        "theirs": steps_alone_theirs(authors, config, folder / "timed.pth"),
    }
    for run in runs.values():
        run()
    times: dict[str, list[Seconds]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(timed(run))
    wall, cpu = (
        {name: statistics.median(getattr(s, kind) for s in held) for name, held in times.items()}
        for kind in ("wall", "cpu")
    )
    return [
        f"{repeats} interleaved repeats of the loop without evaluations, medians: "
        f"ours {wall['ours']:.3f} s, theirs {wall['theirs']:.3f} s "
        f"(CPU time: {cpu['ours']:.3f} s, {cpu['theirs']:.3f} s, ratio "
        f"{cpu['ours'] / cpu['theirs']:.3f}).",
        "",
        f"speed ratio {wall['ours'] / wall['theirs']:.3f}",
    ]


# --- the command ------------------------------------------------------------------------------


def versions() -> str:
    import ot
    import sklearn

    parts = {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "POT": ot.__version__,
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def write_record(case: Case, trace: Trace) -> None:
    content = {
        "produced_by": "train_dlfd of github.com/Dasol-Choi/DLFD, run by "
        "benchmarks/official_parity.py --write",
        "versions": versions(),
        "case": case.title,
        **summary(trace),
    }
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--authors", type=Path, required=True, help="checkout of Dasol-Choi/DLFD")
    parser.add_argument("--write", action="store_true", help=f"write tests/records/{RECORD.name}")
    parser.add_argument("--repeats", type=int, default=7, help="of the speed comparison")
    args = parser.parse_args()
    torch.set_num_threads(1)
    authors = load_authors(args.authors)
    print(versions())
    with tempfile.TemporaryDirectory() as folder, tiny_conv_known():
        os.environ["DLFD_CACHE"] = folder
        for number, case in enumerate(CASES):
            root = Path(folder) / str(number)
            config = make_case(case, root)
            theirs = run_theirs(authors, config, root / "best.pth")
            print(f"\n{case.title}\n", *table(run_ours(config), theirs), sep="\n")
            if args.write and case is RECORDED:
                write_record(case, theirs)
        print("\nspeed, " + CASES[-1].title + "\n")
        print(*speed(authors, config, root, args.repeats), sep="\n")


if __name__ == "__main__":
    main()
