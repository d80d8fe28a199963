"""What is compared with what: methods, seeds, and the runs they make. No file is touched here.

Train seeds are those of Original and Retrained, seeds those of unlearning; with several values of
metrics.seed every method runs on each of them, and the trained models are measured on each. Where
people to forget are drawn, each seed draws its own: Original is trained once per train seed, on
everybody, and measured on every draw; Retrained is trained once per train seed and draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlfd_dist.config import CompareConfig, JobConfig
from dlfd_dist.objectives import OBJECTIVES, Objective

from .runs import Run


@dataclass(frozen=True)
class Comparison:
    """What `dlfd compare` was asked for, from which the runs follow."""

    compare: CompareConfig
    configs: list[JobConfig]
    """One per method or variant of a method, which run.name says, with the first seed and without
    the checkpoint."""
    pairs: list[tuple[int, int]]
    """(train seed, seed), in the order of the runs."""
    given: frozenset[str]
    """The settings on the command line or in the sweep of the experiment."""
    left_out: list[str]
    """Variants that cannot be, each with the reason."""
    metrics_seeds: tuple[int, ...] = (0,)
    """Evaluation seeds; trials have the first."""

    @property
    def out(self) -> Path:
        return Path(self.configs[0].run.dir or "runs/compare")

    @property
    def objective(self) -> Objective:
        """What the trials of a tuning are judged by."""
        return OBJECTIVES[self.compare.objective]

    @property
    def train_seeds(self) -> list[int]:
        return list(dict.fromkeys(train_seed for train_seed, _ in self.pairs))


def with_settings(config: JobConfig, settings: Mapping[str, Any]) -> JobConfig:
    """Return a configuration with `section.name` settings replaced.

    >>> with_settings(JobConfig(), {"train.epochs": 3}).train.epochs
    3
    """
    for key, value in settings.items():
        section, name = key.split(".")
        changed = replace(getattr(config, section), **{name: value})
        config = replace(config, **{section: changed})
    return config


def setting_of(config: JobConfig, setting: str) -> Any:
    """Return the value of a `section.name` setting."""
    section, name = setting.split(".")
    return getattr(getattr(config, section), name)


def forgetting(config: JobConfig, draw: int | None) -> JobConfig:
    """Return a configuration that forgets the people of a draw; None: those that its seed draws."""
    return config if draw is None else replace(config, forget=replace(config.forget, seed=draw))


def placed(config: JobConfig, root: Path, name: str) -> JobConfig:
    """Return a configuration whose directory is <root>/<name>-<signature>."""
    return replace(config, run=replace(config.run, root=str(root), dir=None, name=name))


def model_label(role: str, train_seed: int, draw: int | None = None) -> str:
    """Return what a trained model is called; the draw is said where it is another.

    >>> model_label("retrained", 3), model_label("retrained", 0, 3)
    ('retrained seed 3', 'retrained seed 0 without draw 3')
    """
    preposition = "without" if role == "retrained" else "on"
    return f"{role} seed {train_seed}" + (f" {preposition} draw {draw}" if draw is not None else "")


def draw_of(config: JobConfig, train_seed: int) -> int | None:
    """Return the seed of the people that a run forgets, where its train seed draws others."""
    follows = config.forget.fraction is not None and config.forget.seed is None
    return config.seed if follows and config.seed != train_seed else None


def draws_of(comparison: Comparison) -> dict[int, list[int | None]]:
    """Return the draws that the model of each train seed is held against, its own first."""
    draws: dict[int, list[int | None]] = {train_seed: [] for train_seed in comparison.train_seeds}
    for train_seed, seed in comparison.pairs:
        draws[train_seed].append(draw_of(replace(comparison.configs[0], seed=seed), train_seed))
    return {t: sorted(set(d), key=lambda draw: (draw is not None, draw)) for t, d in draws.items()}


def training_runs(comparison: Comparison) -> list[Run]:
    """Return the trainings: Original per train seed, Retrained per train seed and draw.

    Original is measured on the first of its draws where it is trained.
    """
    planned = []
    for train_seed, draws in draws_of(comparison).items():
        planned += [training_run(comparison, "retrained", train_seed, draw) for draw in draws]
        planned.append(training_run(comparison, "original", train_seed, draws[0]))
    return planned


def training_run(comparison: Comparison, role: str, train_seed: int, draw: int | None) -> Run:
    of_draw = "" if draw is None or role == "original" else f"-draw{draw}"
    config = placed(
        comparison.configs[0], comparison.out / "runs", f"{role}-seed{train_seed}{of_draw}"
    )
    train = replace(config.train, on="retain" if role == "retrained" else "all")
    config = replace(config, verb="train", seed=train_seed, train=train, checkpoint=None)
    config = forgetting(config, draw)
    label = model_label(role, train_seed, None if role == "original" else draw)
    return Run(label, role, train_seed, config, draw=draw)


def measurement_runs(comparison: Comparison) -> list[Run]:
    """Return what the trainings leave to measure: Original on its other draws, further seeds.

    Both models are measured with every evaluation seed, of which trainings have the first.
    """
    planned = []
    for training in training_runs(comparison):
        others = comparison.metrics_seeds[1:]
        planned += [measurement_run(training, training.draw, seed) for seed in others]
        if training.role == "original":
            planned += [
                measurement_run(training, draw, seed)
                for draw in draws_of(comparison)[training.train_seed][1:]
                for seed in comparison.metrics_seeds
            ]
    return planned


def measurement_run(training: Run, draw: int | None, metrics_seed: int) -> Run:
    config, name, label = training.config, training.config.run.name, training.label
    if draw != training.draw:
        name = f"{name}-draw{draw}"
        label = model_label(training.role, training.train_seed, draw)
        config = forgetting(config, draw)
    if metrics_seed != config.metrics.seed:
        name, label = f"{name}-metrics{metrics_seed}", f"{label} measured with seed {metrics_seed}"
    config = replace(
        config, verb="evaluate", checkpoint=training.role,
        metrics=replace(config.metrics, seed=metrics_seed), run=replace(config.run, name=name),
    )  # fmt: skip
    return Run(label, training.role, training.train_seed, config, draw=draw)


def unlearning_runs(comparison: Comparison) -> list[Run]:
    """Return every method on all of its seeds."""
    return [
        _unlearning_run(comparison, config, train_seed, seed, metrics_seed)
        for config in comparison.configs
        for train_seed, seed in comparison.pairs
        for metrics_seed in comparison.metrics_seeds
    ]


def _unlearning_run(
    comparison: Comparison, config: JobConfig, train_seed: int, seed: int, metrics_seed: int
) -> Run:
    title = config.run.name
    name = seeded(title, train_seed, seed, sep="-").replace(" ", "-")
    label = seeded(title, train_seed, seed)
    if metrics_seed != comparison.metrics_seeds[0]:
        name, label = f"{name}-metrics{metrics_seed}", f"{label} measured with seed {metrics_seed}"
    metrics = replace(config.metrics, seed=metrics_seed)
    ready = replace(placed(config, comparison.out / "runs", name), seed=seed, metrics=metrics)
    variant = title.removeprefix(config.method.name).strip()
    return Run(label, "method", train_seed, ready, variant)


def seeded(title: str, train_seed: int, seed: int, sep: str = " ") -> str:
    """Return a title with its seeds; the train seed is said where it is another.

    >>> seeded("dlfd", 3, 3), seeded("dlfd", 0, 3), seeded("dlfd", 0, 3, sep="-")
    ('dlfd seed 3', 'dlfd seed 3 on train seed 0', 'dlfd-seed3-train0')
    """
    if sep == "-":
        return f"{title}-seed{seed}" + (f"-train{train_seed}" if train_seed != seed else "")
    return f"{title} seed {seed}" + (f" on train seed {train_seed}" if train_seed != seed else "")


def parents_of(run: Run) -> tuple[str, str]:
    """Return the labels of the Original and the Retrained that a run starts from."""
    original = model_label("original", run.train_seed)
    return original, model_label("retrained", run.train_seed, people_of(run))


def people_of(run: Run) -> int | None:
    """Return the seed of the people a run is held against, where its train seed draws others."""
    return draw_of(run.config, run.train_seed) if run.draw is None else run.draw


def with_models(planned: Sequence[Run], models: Mapping[str, Path]) -> list[Run]:
    """Return the runs whose Original and Retrained are there, starting from them.

    A measurement starts from the model it measures. A trial gets no reference, for the gap to it
    reads the test set, and Retrained none, for it is the reference.

    Parameters
    ----------
    models : the directories of finished trainings by their label
    """
    ready = []
    for run in planned:
        original, retrained = (models.get(label) for label in parents_of(run))
        if original is not None and retrained is not None:
            checkpoint = retrained if run.role == "retrained" else original
            reference = None if run.role in ("trial", "retrained") else str(retrained)
            config = replace(run.config, checkpoint=str(checkpoint), reference=reference)
            ready.append(run.with_config(config))
    return ready
