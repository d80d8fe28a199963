"""Frozen dataclasses, one per section of the configuration, and JobConfig that holds them all.

YAML files hold values only; types, defaults, units and rules live here. Each section checks
itself when it is made; rules across sections are in JobConfig.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .registry import near_match

VERBS = ("train", "unlearn", "evaluate")


def _require(condition: bool, setting: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{setting}={value} is not allowed: it must be {allowed}.")


def _one_of(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{setting}={value} is not allowed: it must be one of {', '.join(allowed)}."
            + near_match(str(value), allowed)
        )


@dataclass(frozen=True)
class SyntheticFacesConfig:
    """The synthetic-face generator (data=synthetic). Drawn faces, no real persons."""

    num_identities: int = 24
    images_per_identity: int = 8
    num_expressions: int = 2
    """Number of classes; the label is the expression, never the identity."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "data.synthetic.seed", self.seed, ">= 0")
        _require(
            self.num_identities >= 5, "data.synthetic.num_identities", self.num_identities, ">= 5"
        )
        _require(
            self.images_per_identity >= 1,
            "data.synthetic.images_per_identity", self.images_per_identity, ">= 1",
        )  # fmt: skip
        _require(
            2 <= self.num_expressions <= 8,
            "data.synthetic.num_expressions", self.num_expressions, "between 2 and 8",
        )  # fmt: skip


@dataclass(frozen=True)
class DataConfig:
    """Which images, which label, and how they become tensors."""

    name: str = "manifest"
    """Registry key: manifest, orl, synthetic, mufac, mucac, raf_db, image_folder."""
    root: str | None = None
    """Folder of the data set; image paths are relative to it and may not leave it."""
    manifest: str = "metadata.csv"
    """CSV under `root` with the columns image_path, identity, the label, and optionally split."""
    label: list[str] = field(default_factory=lambda: ["label"])
    """Label column. Several columns make a multi-label task of 0/1 labels."""
    image_size: int = 64
    """Edge of the square images in pixels."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    augment: str = "none"
    """Training augmentation: none, flip, face (flip, shift, scale, light), mufac, raf_db."""
    augment_groups: int = 16
    """Draws of augmentation parameters per global batch; each group of samples shares one."""
    val_fraction: float = 0.15
    """Share of the people drawn for validation where the data set names no split."""
    test_fraction: float = 0.15
    """Share of the people drawn for the test set where the data set names no split."""
    split_seed: int = 0
    cache_dir: str | None = None
    """Folder of the decoded uint8 images; null: $DLFD_CACHE, else a folder under ~/.cache."""
    synthetic: SyntheticFacesConfig = field(default_factory=SyntheticFacesConfig)

    def __post_init__(self) -> None:
        _require(len(self.label) >= 1, "data.label", self.label, "the name of at least one column")
        _require(
            8 <= self.image_size <= 1024, "data.image_size", self.image_size, "between 8 and 1024"
        )
        _require(
            len(self.mean) == 3 == len(self.std),
            "data.mean",
            self.mean,
            "three numbers, as data.std",
        )
        _require(all(s > 0 for s in self.std), "data.std", self.std, "positive")
        _one_of("data.augment", self.augment, ("none", "flip", "face", "mufac", "raf_db"))
        _require(self.augment_groups >= 1, "data.augment_groups", self.augment_groups, ">= 1")
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            _require(0 < value < 0.5, f"data.{name}", value, "above 0 and below 0.5")
        _require(self.split_seed >= 0, "data.split_seed", self.split_seed, ">= 0")


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: backbone, then head; the features are what the last linear layer reads."""

    name: str = "resnet18"
    """Registry key: resnet18, densenet121, efficientnet_b0, vit_b_16."""
    head: str = "linear"
    """linear, or mlp: the 512-256-128-C head of the DLFD paper (features are the 128)."""
    dropout: float = 0.5
    """Dropout of the mlp head, 0..1; a linear head has none."""
    small_stem: bool = False
    """First convolution with stride 1 and no pooling after it, for images below about 64 pixels."""

    def __post_init__(self) -> None:
        _one_of("model.head", self.head, ("linear", "mlp"))
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and below 1")


@dataclass(frozen=True)
class ForgetConfig:
    """Who is to be forgotten: a request file, or a share of the people drawn at random."""

    request: str | None = None
    """Text or CSV file of identities or image paths."""
    fraction: float | None = None
    """Share of the training people to draw when there is no request, above 0 and below 1."""
    seed: int = 0
    """Seed of that draw."""

    def __post_init__(self) -> None:
        if self.request is not None and self.fraction is not None:
            raise ConfigError(
                "forget.request and forget.fraction are both set: give the request file or the "
                "fraction of people, not both."
            )
        _require(self.seed >= 0, "forget.seed", self.seed, ">= 0")
        if self.fraction is not None:
            _require(0 < self.fraction < 1, "forget.fraction", self.fraction, "above 0 and below 1")

    @property
    def given(self) -> bool:
        return self.request is not None or self.fraction is not None


def _check_sgd(section: str, cfg: Any) -> None:
    _require(0 < cfg.lr < math.inf, f"{section}.lr", cfg.lr, "above 0 and finite")
    _require(0 <= cfg.momentum < 1, f"{section}.momentum", cfg.momentum, "at least 0 and below 1")
    _require(cfg.weight_decay >= 0, f"{section}.weight_decay", cfg.weight_decay, ">= 0")
    _require(cfg.epochs >= 1, f"{section}.epochs", cfg.epochs, ">= 1")
    _require(
        cfg.global_batch_size >= 1, f"{section}.global_batch_size", cfg.global_batch_size, ">= 1"
    )
    if cfg.clip_norm is not None:
        _require(
            cfg.clip_norm > 0, f"{section}.clip_norm", cfg.clip_norm, "above 0, or null for none"
        )
    if cfg.max_steps is not None:
        _require(cfg.max_steps >= 1, f"{section}.max_steps", cfg.max_steps, ">= 1, or null for all")
    _one_of(f"{section}.lr_scheduler", cfg.lr_scheduler, ("constant", "cosine"))


@dataclass(frozen=True)
class TrainConfig:
    """Training from scratch: Original (on=all) and Retrained (on=retain)."""

    on: str = "all"
    epochs: int = 30
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    global_batch_size: int = 32
    clip_norm: float | None = None
    lr_scheduler: str = "cosine"
    """constant, or cosine to zero over the epochs; it steps once per epoch."""
    max_steps: int | None = None
    patience: int | None = None
    """Stop after so many epochs without a better validation accuracy; null: never."""

    def __post_init__(self) -> None:
        _one_of("train.on", self.on, ("all", "retain"))
        _check_sgd("train", self)
        if self.patience is not None:
            _require(self.patience >= 1, "train.patience", self.patience, ">= 1, or null for never")


@dataclass(frozen=True)
class MethodConfig:
    """What every method has: SGD passes over the retain set, probed and selected on val."""

    name: str = "finetune"
    epochs: int = 1
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    global_batch_size: int = 32
    clip_norm: float | None = 1.0
    """Largest gradient norm; null: no clipping."""
    lr_scheduler: str = "constant"
    max_steps: int | None = None
    augment: bool = False
    """Augment the retain images as data.augment says, before anything else is done with them."""
    probe_every: int | None = None
    """Steps between forgetting-score probes; null: before the first and after the last step."""
    probe_attack: str = "mia"
    """Attack of the probe: mia (balanced, on confidence) or mia_paper (raw loss)."""
    select: str = "last"
    """Which weights are delivered: last, accuracy (best validation accuracy among probes whose
    forgetting score is at most max_forgetting_score) or nomus (best validation NoMUS)."""
    max_forgetting_score: float = 0.5
    """Largest forgetting score, 0..0.5, of a checkpoint that select=accuracy may take."""

    def __post_init__(self) -> None:
        _check_sgd("method", self)
        _one_of("method.select", self.select, ("last", "accuracy", "nomus"))
        _one_of("method.probe_attack", self.probe_attack, ("mia", "mia_paper"))
        if self.probe_every is not None:
            _require(self.probe_every >= 1, "method.probe_every", self.probe_every, ">= 1, or null")
        _require(
            0 <= self.max_forgetting_score <= 0.5,
            "method.max_forgetting_score", self.max_forgetting_score, "between 0 and 0.5",
        )  # fmt: skip


@dataclass(frozen=True)
class DLFDConfig(MethodConfig):
    """DLFD (Choi and Na, AAAI 2025) and its authors' published loop."""

    name: str = "dlfd"
    forget_threshold: float = 0.05
    """Synthesis acts while the last probed forgetting score is above this, 0..0.5."""
    forget_weight: float = 3.0
    initial_retain_weight: float = 0.0
    final_retain_weight: float = 1.0
    """The weight of the classification loss in synthesis runs linearly over the steps."""
    distancing: bool = True
    """Ablation: the optimal-transport term of the synthesis."""
    classification: bool = True
    """Ablation: the classification term of the synthesis."""
    dynamic: bool = True
    """Ablation: off, synthesis acts in every step whatever the forgetting score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            0 <= self.forget_threshold <= 0.5,
            "method.forget_threshold", self.forget_threshold, "between 0 and 0.5",
        )  # fmt: skip
        for name in ("forget_weight", "initial_retain_weight", "final_retain_weight"):
            _require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), ">= 0")
        if not (self.distancing or self.classification):
            raise ConfigError(
                "method.distancing=false and method.classification=false leave nothing to "
                "synthesise: that is method=finetune."
            )


METHOD_CONFIGS: dict[str, type[MethodConfig]] = {
    "dlfd": DLFDConfig,
    "dlfd_official": DLFDConfig,
    "finetune": MethodConfig,
}


@dataclass(frozen=True)
class SynthesisConfig:
    """Projected gradient steps on retain images (DESIGN: component 2 of DLFD)."""

    steps: int = 15
    step_size: float = 0.05
    """Step of one iteration in units of the normalised image."""
    pgd_radius: float | None = None
    """Radius of the infinity ball around the image, same unit; null: the range of real pixels."""
    layer: str = "features"
    """Where distributions are compared: features (input of the last linear layer) or logits."""
    save: int = 0
    """Keep the first so many synthesised images as safetensors and a contact sheet."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, "synthesis.steps", self.steps, ">= 1")
        _require(self.step_size > 0, "synthesis.step_size", self.step_size, "above 0")
        if self.pgd_radius is not None:
            _require(
                self.pgd_radius > 0, "synthesis.pgd_radius", self.pgd_radius, "above 0, or null"
            )
        _one_of("synthesis.layer", self.layer, ("features", "logits"))
        _require(self.save >= 0, "synthesis.save", self.save, ">= 0")


@dataclass(frozen=True)
class TransportConfig:
    """Optimal transport between retain and forget features."""

    cost: str = "cosine"
    solver: str = "auto"
    """exact, entropic, or auto: exact while the larger side has at most 1024 rows."""
    reg: float = 0.01
    """Entropic regularisation in units of the cost (cosine cost lies in 0..2)."""
    max_iter: int = 1000
    scope: str = "global"
    """global: one plan over all ranks; rank: one plan per rank (cheaper for very large batches,
    and a different objective, so results then depend on the world size)."""

    def __post_init__(self) -> None:
        _one_of("ot.cost", self.cost, ("cosine", "squared_euclidean"))
        _one_of("ot.solver", self.solver, ("auto", "exact", "entropic"))
        _one_of("ot.scope", self.scope, ("global", "rank"))
        _require(self.reg > 0, "ot.reg", self.reg, "above 0")
        _require(self.max_iter >= 1, "ot.max_iter", self.max_iter, ">= 1")


@dataclass(frozen=True)
class MetricsConfig:
    """Evaluation at the end of every run."""

    eval_batch_size: int = 256
    """Images per forward pass and rank."""
    num_bootstrap: int = 1000
    seed: int = 0
    """Seed of attacks, balanced draws and bootstrap."""

    def __post_init__(self) -> None:
        _require(self.eval_batch_size >= 1, "metrics.eval_batch_size", self.eval_batch_size, ">= 1")
        _require(self.seed >= 0, "metrics.seed", self.seed, ">= 0")
        _require(self.num_bootstrap >= 1, "metrics.num_bootstrap", self.num_bootstrap, ">= 1")


@dataclass(frozen=True)
class RuntimeConfig:
    """Where it runs; nothing here but dtype, autocast and channels_last may change a result."""

    world_size: int = 1
    """Ranks on this machine; under torchrun or srun the outer launcher decides instead."""
    device: str = "auto"
    dtype: str = "float32"
    autocast: str = "none"
    """none, or bfloat16 for the forward passes (weights and updates stay in dtype)."""
    channels_last: bool = False
    threads_per_rank: int | None = None
    """CPU threads of one rank; null: the cores of this machine shared among its ranks."""
    init_timeout_s: int = 120
    collective_timeout_s: int = 1800

    def __post_init__(self) -> None:
        _require(self.world_size >= 1, "runtime.world_size", self.world_size, ">= 1")
        if self.threads_per_rank is not None:
            _require(
                self.threads_per_rank >= 1,
                "runtime.threads_per_rank", self.threads_per_rank, ">= 1, or null",
            )  # fmt: skip
        for name in ("init_timeout_s", "collective_timeout_s"):
            _require(getattr(self, name) >= 1, f"runtime.{name}", getattr(self, name), ">= 1")
        _one_of("runtime.device", self.device, ("auto", "cpu", "cuda"))
        _one_of("runtime.dtype", self.dtype, ("float32", "float64"))
        _one_of("runtime.autocast", self.autocast, ("none", "bfloat16"))
        if self.dtype == "float64" and self.autocast != "none":
            raise ConfigError("runtime.autocast=bfloat16 needs runtime.dtype=float32, not float64.")


@dataclass(frozen=True)
class RunConfig:
    """The directory of the run and what is kept in it."""

    name: str = "run"
    root: str = "runs"
    dir: str | None = None
    """Directory of this run; null: <root>/<name>-<8 hex of what changes results>."""
    checkpoint_every: int = 50
    """Steps between checkpoints for resuming."""
    keep_checkpoints: int = 2
    log_every_s: float = 10.0
    """Seconds between progress lines when the output is not a terminal."""

    def __post_init__(self) -> None:
        _require(self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, ">= 1")
        _require(self.keep_checkpoints >= 1, "run.keep_checkpoints", self.keep_checkpoints, ">= 1")
        _require(self.log_every_s > 0, "run.log_every_s", self.log_every_s, "above 0")


# Settings that may differ between two starts of the same run.
NOT_IN_SIGNATURE = {
    "run": None,
    "runtime": {
        "world_size",
        "device",
        "threads_per_rank",
        "init_timeout_s",
        "collective_timeout_s",
    },
    "metrics": {"eval_batch_size"},
    "data": {"root", "cache_dir"},
}


@dataclass(frozen=True)
class JobConfig:
    """Everything one run needs; the resolved form is `config.yaml` in the run directory."""

    verb: str = "train"
    seed: int = 0
    checkpoint: str | None = None
    """The model to unlearn or to evaluate: .safetensors, .pth, or a run directory."""
    reference: str | None = None
    """The Retrained model to measure the gap to; same forms as checkpoint."""
    train_mode: str = "frozen"
    """BatchNorm while unlearning: frozen, or sync_bn (statistics of the global batch)."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    forget: ForgetConfig = field(default_factory=ForgetConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    ot: TransportConfig = field(default_factory=TransportConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _one_of("verb", self.verb, VERBS)
        _require(self.seed >= 0, "seed", self.seed, ">= 0")
        _one_of("train_mode", self.train_mode, ("frozen", "sync_bn"))
        if self.verb in ("unlearn", "evaluate") and self.checkpoint is None:
            raise ConfigError(
                f"checkpoint is missing: 'dlfd {self.verb}' needs checkpoint=PATH "
                "(a .safetensors or .pth file, or the directory of a training run)."
            )
        needs_forget = self.verb == "unlearn" or (
            self.verb == "train" and self.train.on == "retain"
        )
        if needs_forget and not self.forget.given:
            raise ConfigError(
                "Nobody to forget: give forget.request=FILE (identities or image paths, one a "
                "line) or forget.fraction=0.2 to draw people."
            )

    def _require_official_settings(self) -> None:
        """Refuse settings that would ask for another loop than the authors'."""
        needed = {
            "synthesis.layer": (self.synthesis.layer, "logits"),
            "synthesis.pgd_radius": (self.synthesis.pgd_radius, None),
            "method.probe_every": (self.method.probe_every, 1),
        }
        for name, (found, theirs) in needed.items():
            if found != theirs:
                found, theirs = ("null" if value is None else value for value in (found, theirs))
                raise ConfigError(
                    f"{name}={found} is not allowed with method=dlfd_official, which repeats the "
                    f"authors' loop: set {name}={theirs} or take method=dlfd."
                )

    def validate(self, world_size: int) -> None:
        """Check the rules across sections, and those that depend on the number of ranks."""
        if self.verb == "unlearn" and self.method.name == "dlfd_official" and world_size != 1:
            raise ConfigError(
                f"method=dlfd_official runs on one rank only, not {world_size}: it repeats the "
                "authors' single-process loop. Set runtime.world_size=1 or take method=dlfd."
            )
        if self.verb == "unlearn" and self.method.name == "dlfd_official":
            self._require_official_settings()
        section = self.method if self.verb == "unlearn" else self.train
        if self.verb != "evaluate" and world_size > section.global_batch_size:
            name = "method" if self.verb == "unlearn" else "train"
            raise ConfigError(
                f"runtime.world_size={world_size} is larger than {name}.global_batch_size="
                f"{section.global_batch_size}: some ranks would never get a sample. "
                "Use fewer ranks or a larger batch."
            )


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def signature(config: JobConfig, inputs: dict[str, str]) -> str:
    """Return 8 hex digits of what changes the result of a run.

    Left out are settings that must not change results (world size, device, directories, logging);
    `inputs` are digests of the files the run reads, so that a changed file is another run.
    """
    values = to_dict(config)
    for section, names in NOT_IN_SIGNATURE.items():
        if names is None:
            del values[section]
        else:
            values[section] = {k: v for k, v in values[section].items() if k not in names}
    for path in ("checkpoint", "reference"):
        values[path] = values[path] is not None
    values["forget"]["request"] = values["forget"]["request"] is not None
    relevant = {
        "train": ("train",),
        "unlearn": ("method", "synthesis", "ot", "train_mode"),
        "evaluate": (),
    }
    for verb, sections in relevant.items():
        if verb != config.verb:
            for section in sections:
                values.pop(section, None)
    text = json.dumps([values, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
