"""JobConfig holds every section of a run; its signature says which run it is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError
from .checks import one_of, require
from .method import MethodConfig
from .methods import METHOD_CONFIGS, DLFMConfig
from .sections import (
    DataConfig,
    ForgetConfig,
    MetricsConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    SynthesisConfig,
    TrainConfig,
    TransportConfig,
)

VERBS = ("train", "unlearn", "evaluate")

# Settings that may differ between two starts of the same run.
NOT_IN_SIGNATURE = {
    "run": None,
    "runtime": {
        "world_size",
        "device",
        "cuda_graphs",
        "threads_per_rank",
        "init_timeout_s",
        "collective_timeout_s",
    },
    "metrics": {"eval_batch_size", "separation"},
    # The digest of its config.json is among the inputs.
    "model": {"folder"},
    "data": {"root", "cache_dir", "leaks", "verify"},
    # The digest of the request says who was drawn.
    "forget": {"seed", "rounds"},
}

# Settings that count only where they are given: runs from before there were such keep theirs.
COUNT_IF_GIVEN = {
    "data": (
        "factory",
        "args",
        "pixel_range",
        "classes",
        "image_column",
        "identity_column",
        "split_column",
    ),
    "model": ("factory", "library", "args", "features"),
    "method": (
        "blocks",
        "probe_fraction",
        "reset",
        "reset_strength",
        "reset_profile",
        "reset_blocks",
        "reset_images",
        "teacher",
        "teacher_epochs",
        "teacher_lr",
        "teacher_back",
        "conditional",
        "difficulty",
        "difficulty_bins",
        "rests_by",
        "margin",
    ),
    "metrics": ("resurface_always", "custom"),
    "ot": ("lag",),
}

# Settings that one verb alone reads.
READ_BY = {
    "train": ("train",),
    "unlearn": ("method", "synthesis", "ot", "train_mode"),
    "evaluate": (),
}

# Settings of `train` that an unlearning run reads with metrics.relearn_steps.
READ_TO_RELEARN = (
    "lr", "momentum", "weight_decay", "global_batch_size", "optimizer", "clip_norm",
)  # fmt: skip


@dataclass(frozen=True)
class JobConfig:
    """Everything one run needs; the resolved form is `config.yaml` in the run directory."""

    verb: str = "train"
    seed: int = 0
    """Of new weights, order, augmentation, dropout and noise."""
    checkpoint: str | None = None
    """The model to unlearn or to evaluate: .safetensors, .pth, or a run directory."""
    reference: str | None = None
    """The Retrained model to measure the gap to; same forms as checkpoint."""
    train_mode: str = "authors"
    """BatchNorm while unlearning: frozen, sync_bn (statistics of the global batch), or authors (as
    the authors of the method have it, one of the two; see docs/methods.md)."""
    plugins: list[str] = field(default_factory=list)
    """Modules of other packages that register methods, models, data sets, metrics or trackers when
    they are imported; what has an entry point need not be here."""
    trackers: list[str] = field(default_factory=list)
    """Where the main rank tells its figures while the run goes on: csv, mlflow, tensorboard, wandb,
    or those of a plugin. They change nothing of the result."""
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
        one_of("verb", self.verb, VERBS)
        require(self.seed >= 0, "seed", self.seed, ">= 0")
        one_of("train_mode", self.train_mode, ("authors", "frozen", "sync_bn"))
        if self.verb in ("unlearn", "evaluate") and self.checkpoint is None:
            raise ConfigError(
                f"checkpoint is missing: 'dlfd {self.verb}' needs checkpoint=PATH "
                "(a .safetensors or .pth file, or the directory of a training run)."
            )
        needs_forget = self.verb == "unlearn" or (
            self.verb == "train" and self.train.on == "retain"
        )
        if needs_forget and not self.names_people:
            raise ConfigError(
                "Nobody to forget: give forget.request=FILE (identities or image paths, one a "
                "line) or forget.fraction=0.2 to draw people."
            )

    @property
    def names_people(self) -> bool:
        """Whether it says who is to be forgotten; sets of a function may say it themselves."""
        return self.forget.given or self.data.factory is not None

    @property
    def drawn_forget(self) -> ForgetConfig:
        """Who is to be forgotten, with the seed of the draw: forget.seed, else that of the run."""
        seed = self.seed if self.forget.seed is None else self.forget.seed
        return replace(self.forget, seed=seed)

    def _require_official_settings(self) -> None:
        """Refuse settings that would ask for another loop than the authors'."""
        needed = {
            "synthesis.layer": (self.synthesis.layer, "logits"),
            "synthesis.pgd_radius": (self.synthesis.pgd_radius, None),
            "method.probe_every": (self.method.probe_every, 1),
            "method.steps": (self.method.steps, None),
            "method.probe_images": (getattr(self.method, "probe_images", None), None),
        }
        for name, (given, theirs) in needed.items():
            if given != theirs:
                given, theirs = ("null" if value is None else value for value in (given, theirs))
                raise ConfigError(
                    f"{name}={given} is not allowed with method=dlfd_official, which repeats the "
                    f"authors' loop: set {name}={theirs} or take method=dlfd."
                )

    def _require_matching_settings(self) -> None:
        """Refuse what would let forget images, or single ranks, decide what is matched."""
        refused = {
            "train_mode": (self.train_mode, "sync_bn", "frozen"),
            "ot.scope": (self.ot.scope, "rank", "global"),
            "ot.lag": (self.ot.lag, 1, 0),
        }
        for name, (given, wrong, allowed) in refused.items():
            if given == wrong:
                raise ConfigError(
                    f"{name}={given} is not allowed with method=dlfm, which compares whole "
                    f"distributions under one model: set {name}={allowed}."
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
        if self.verb == "unlearn" and isinstance(self.method, DLFMConfig):
            self._require_matching_settings()
        if self.verb == "unlearn" and self.method.name == "scrub" and self.train_mode == "frozen":
            raise ConfigError(
                "train_mode=frozen is not allowed with method=scrub, whose first max pass would "
                "begin with a student equal to its teacher and move nothing: set "
                "train_mode=sync_bn, or leave it out."
            )
        section = self.method if self.verb == "unlearn" else self.train
        if self.verb != "evaluate" and world_size > section.global_batch_size:
            name = "method" if self.verb == "unlearn" else "train"
            raise ConfigError(
                f"runtime.world_size={world_size} is larger than {name}.global_batch_size="
                f"{section.global_batch_size}: some ranks would never get a sample. "
                "Use fewer ranks or a larger batch."
            )


def given_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain settings without those of COUNT_IF_GIVEN that have their defaults."""
    kinds: dict[str, type] = {
        "data": DataConfig, "model": ModelConfig, "metrics": MetricsConfig, "ot": TransportConfig,
    }  # fmt: skip
    kept = dict(values)
    for section, names in COUNT_IF_GIVEN.items():
        if given := kept.get(section):
            kind = kinds.get(section) or METHOD_CONFIGS.get(given.get("name"), MethodConfig)
            unset = {name: getattr(kind(), name, None) for name in names}
            kept[section] = {k: v for k, v in given.items() if v != unset.get(k, ...)}
    return kept


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain nested dictionaries.

    As dataclasses.asdict, which copies every number and string by itself, but three times as fast:
    a campaign of a thousand runs asks some thousand times.
    """
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return to_dict(value) if dataclasses.is_dataclass(value) else copy.deepcopy(value)


def read_by(verb: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that only other verbs read."""
    others = {section for other in READ_BY if other != verb for section in READ_BY[other]}
    return {key: value for key, value in values.items() if key not in others}


def signature(config: JobConfig, inputs: dict[str, str]) -> str:
    """Return 8 hex digits of what changes the result of a run.

    `inputs` are digests of the files the run reads, so that a changed file is another run.
    """
    text = json.dumps([signed_settings(config), inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def signed_settings(config: JobConfig) -> dict[str, Any]:
    """Return the settings that change the result of a run, by section.

    Left out are world size, device, directories and logging; of a path it counts whether it is
    given.
    """
    values = to_dict(config)
    for section, names in NOT_IN_SIGNATURE.items():
        if names is None:
            del values[section]
        else:
            values[section] = {k: v for k, v in values[section].items() if k not in names}
    # What they registered and was chosen is among the inputs, by the digest of its code.
    del values["plugins"], values["trackers"]
    values = given_settings(values)
    for path in ("checkpoint", "reference"):
        values[path] = values[path] is not None
    values["forget"]["request"] = values["forget"]["request"] is not None
    if values["method"].get("reference_manifest") is not None:
        values["method"]["reference_manifest"] = True
    relearn_steps = values["metrics"].pop("relearn_steps")
    read = read_by(config.verb, values)
    if relearn_steps and config.verb == "unlearn":
        read["relearn"] = [relearn_steps, *(values["train"][name] for name in READ_TO_RELEARN)]
    resurface_steps = values["metrics"]["resurface_steps"]
    always = config.metrics.resurface_always
    if resurface_steps or (resurface_steps is None and (config.verb == "unlearn" or always)):
        read["resurface"] = values["train"]["global_batch_size"]
    return read
