"""What a comparison consists of: methods, seeds, and the runs they make. No file is touched here.

Train seeds are those of Original and Retrained, seeds those of unlearning; with several values of
metrics.seed every method runs on each of them, and the trained models are measured on each. Where
people to forget are drawn, each seed draws its own: Original is trained once per train seed, on
everybody, and measured on every draw; Retrained is trained once per train seed and draw.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlfd_dist.compose import compose_job, expand_grid, known_settings, split_compare
from dlfd_dist.config import METHOD_CONFIGS, CompareConfig, DLFDConfig, JobConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.objectives import OBJECTIVES, Objective

from .contrasts import named_contrasts
from .runs import Plan, Planned

METRICS_SEED = "metrics.seed"
OFFICIAL = "dlfd_official"
"""The authors' loop: beside other methods it keeps its own steps, probes and choice of weights."""
ITS_OWN = {"method.probe_every", "method.select"}


def make_plan(overrides: Sequence[str]) -> Plan:
    """Return the comparison that a command line asks for.

    Several values of a setting of unlearning make as many variants of the methods that read it.
    """
    compare, rest = split_compare(overrides)
    for name in ("checkpoint", "reference"):
        if any(_key(o) == name for o in rest):
            raise ConfigError(
                f"A comparison trains Original and Retrained itself, for each train seed: leave "
                f"{name} out, or take 'dlfd unlearn', which unlearns a model of your own."
            )
    if not any(_key(o) == "method" for o in rest):
        rest.append("method=dlfd,finetune")
    # The last of several values counts, as everywhere on the command line.
    points = expand_grid(list({_key(o): o for o in rest}.values()))
    names = list(dict.fromkeys(_method_of(point) for point in points))
    listed = _listed(points)
    configs: dict[tuple[str, ...], JobConfig] = {}
    seeds, left_out = [], {}
    for point in points:
        kept = _reaching(point, names)
        identity = tuple(o for o in kept if _key(o) == "method" or _key(o) in listed)
        seed = next((o.split("=", 1)[1] for o in point if _key(o) == "seed"), "0")
        # Composing takes 40 ms, and points that differ by their seed alone differ by nothing else.
        if seed.isdecimal() and (identity in configs or " ".join(identity) in left_out):
            seeds.append(int(seed))
            continue
        try:
            config = _compose(kept, listed)
        except ConfigError as err:
            if not listed:
                raise
            left_out[" ".join(identity)] = err
            continue
        configs.setdefault(identity, _with_steps(compare, config))
        seeds.append(config.seed)
    if not configs:
        raise next(iter(left_out.values()))
    for config in configs.values():
        _require_kept_epoch(config)
        if compare.tune:
            require_resurfacing("compare", OBJECTIVES[compare.objective], config)
    notes = [f"{name}: {err}" for name, err in left_out.items()]
    given = frozenset(_key(o) for o in rest)
    _check_steps(compare, given, configs.values())
    pairs, metrics_seeds = _pairs(compare, seeds), _metrics_seeds(points, configs)
    plan = Plan(compare, list(configs.values()), pairs, given, notes, metrics_seeds)
    if compare.contrasts is not None:
        named_contrasts(plan)
    return plan


def _with_steps(compare: CompareConfig, config: JobConfig) -> JobConfig:
    """Return a configuration with the optimiser steps that all methods take, if there are any."""
    if compare.steps is None or not config.method.takes_steps or config.method.name == OFFICIAL:
        return config
    return with_settings(config, {"method.steps": compare.steps})


def _require_kept_epoch(config: JobConfig) -> None:
    """Refuse method=rewind where Original will not keep the weights that it goes back to."""
    every, last = config.train.keep_every, config.train.epochs
    epoch = last - config.method.epochs
    if config.method.name != "rewind" or (every is not None and epoch > 0 and epoch % every == 0):
        return
    if epoch < 1:
        raise ConfigError(
            f"method=rewind goes back {config.method.epochs} epochs, and Original is trained for "
            f"{last}: set method.epochs below train.epochs."
        )
    raise ConfigError(
        f"method=rewind goes back to epoch {epoch} of {last}, whose weights Original does not keep "
        f"with train.keep_every={'null' if every is None else every}: set "
        f"train.keep_every={epoch}, or a divisor of it."
    )


def require_resurfacing(section: str, objective: Objective, config: JobConfig) -> None:
    """Refuse trials that are judged by what nobody measures."""
    if objective.resurfaces and config.metrics.resurface_steps == 0:
        raise ConfigError(
            f"{section}.objective={objective.name} is what metrics.resurface_steps of fine-tuning "
            "bring back, and these are 0: leave metrics.resurface_steps out, or give it a number."
        )


def _check_steps(
    compare: CompareConfig, given: frozenset[str], configs: Iterable[JobConfig]
) -> None:
    """Refuse what compare.steps replaces, and the authors' loop where nothing else takes them."""
    if compare.steps is None:
        return
    for name in ("method.epochs", "method.max_steps", "method.steps"):
        if name in given:
            raise ConfigError(
                f"compare.steps={compare.steps} and {name} are both set: compare.steps says how "
                f"many optimiser steps every method takes, so leave {name} out."
            )
    if all(config.method.name == OFFICIAL for config in configs):
        raise ConfigError(
            f"compare.steps={compare.steps} is not possible with method=dlfd_official alone, which "
            "repeats its authors' loop: compare other methods with it, or leave compare.steps out."
        )


def _metrics_seeds(
    points: Sequence[Sequence[str]], configs: Mapping[tuple[str, ...], JobConfig]
) -> tuple[int, ...]:
    texts = dict.fromkeys(o.split("=", 1)[1] for p in points for o in p if _key(o) == METRICS_SEED)
    for text in texts:
        if not text.isdecimal():
            raise ConfigError(f"{METRICS_SEED}={text} is not allowed: it must be >= 0.")
    return tuple(map(int, texts)) or (next(iter(configs.values())).metrics.seed,)


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+")


def _method_of(point: Sequence[str]) -> str:
    return next(o.split("=", 1)[1] for o in point if _key(o) == "method")


def _listed(points: Sequence[Sequence[str]]) -> set[str]:
    """Return the settings with several values, besides method and seeds."""
    keys = {_key(values[0]) for values in zip(*points, strict=True) if len(set(values)) > 1}
    listed = keys - {"method", "seed", METRICS_SEED}
    for key in sorted(listed):
        if key != "train_mode" and not key.startswith(("method.", "synthesis.", "ot.")):
            raise ConfigError(
                f"{key} lists several values, but Original and Retrained would differ too: give "
                f"{key} one value, and each other value a comparison of its own."
            )
    return listed


def _pairs(compare: CompareConfig, seeds: Sequence[int]) -> list[tuple[int, int]]:
    if compare.train_seeds is None:
        return [(seed, seed) for seed in dict.fromkeys(seeds)]
    return list(dict.fromkeys(itertools.product(compare.train_seeds, seeds)))


def _reaching(point: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the overrides of a point without those that only other methods read."""
    everything = set().union(*map(_settings_of, names))
    mine = _settings_of(_method_of(point))
    return [o for o in point if _key(o) in mine or _key(o) not in everything]


def _compose(kept: Sequence[str], listed: set[str]) -> JobConfig:
    """Return one unlearning configuration; its run is named after the method and the variant.

    The variant names the listed settings whose value is not the method's own.
    """

    def composed(overrides: Sequence[str]) -> JobConfig:
        return compose_job("unlearn", [*overrides, "checkpoint=original"])

    config = composed(kept)
    variant = [
        _shown(override)
        for override in kept
        if _key(override) in listed and composed([o for o in kept if o != override]) != config
    ]
    return replace(config, run=replace(config.run, name=" ".join([config.method.name, *variant])))


def _shown(override: str) -> str:
    """Return a setting as a user writes it: Hydra's lists give True where true was typed."""
    key, value = override.removeprefix("method.").split("=", 1)
    return f"{key}={value.lower() if value in ('True', 'False') else value}"


@functools.cache
def _settings_of(method: str) -> set[str]:
    """Return the settings that a method reads; only DLFD synthesises images.

    What its authors' loop has of its own, dlfd_official takes from nobody beside whom it stands.
    """
    # An unknown method is refused by compose_job, which lists the known ones.
    cls = METHOD_CONFIGS.get(method, DLFDConfig)
    synthesis = () if issubclass(cls, DLFDConfig) else ("synthesis.", "ot.")
    known = {name for name in known_settings(cls) if not name.startswith(tuple(synthesis))}
    return known - ITS_OWN if method == OFFICIAL else known


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


def draws_of(plan: Plan) -> dict[int, list[int | None]]:
    """Return the draws that the model of each train seed is held against, its own first."""
    draws: dict[int, list[int | None]] = {train_seed: [] for train_seed in plan.train_seeds}
    for train_seed, seed in plan.pairs:
        draws[train_seed].append(draw_of(replace(plan.configs[0], seed=seed), train_seed))
    return {t: sorted(set(d), key=lambda draw: (draw is not None, draw)) for t, d in draws.items()}


def training_runs(plan: Plan) -> list[Planned]:
    """Return the trainings: Original per train seed, Retrained per train seed and draw.

    Original is measured on the first of its draws where it is trained.
    """
    planned = []
    for train_seed, draws in draws_of(plan).items():
        planned += [training_run(plan, "retrained", train_seed, draw) for draw in draws]
        planned.append(training_run(plan, "original", train_seed, draws[0]))
    return planned


def training_run(plan: Plan, role: str, train_seed: int, draw: int | None) -> Planned:
    of_draw = "" if draw is None or role == "original" else f"-draw{draw}"
    config = placed(plan.configs[0], plan.out / "runs", f"{role}-seed{train_seed}{of_draw}")
    train = replace(config.train, on="retain" if role == "retrained" else "all")
    config = replace(config, verb="train", seed=train_seed, train=train, checkpoint=None)
    if draw is not None:
        config = replace(config, forget=replace(config.forget, seed=draw))
    label = model_label(role, train_seed, None if role == "original" else draw)
    return Planned(label, role, train_seed, config, draw=draw)


def measurement_runs(plan: Plan) -> list[Planned]:
    """Return what the trainings leave to measure: Original on its other draws, further seeds.

    Both models are measured with every evaluation seed, of which trainings have the first.
    """
    planned = []
    for training in training_runs(plan):
        others = plan.metrics_seeds[1:]
        planned += [measurement_run(training, training.draw, seed) for seed in others]
        if training.role == "original":
            planned += [
                measurement_run(training, draw, seed)
                for draw in draws_of(plan)[training.train_seed][1:]
                for seed in plan.metrics_seeds
            ]
    return planned


def measurement_run(training: Planned, draw: int | None, metrics_seed: int) -> Planned:
    config, name, label = training.config, training.config.run.name, training.label
    if draw != training.draw:
        name = f"{name}-draw{draw}"
        label = model_label(training.role, training.train_seed, draw)
        config = replace(config, forget=replace(config.forget, seed=draw))
    if metrics_seed != config.metrics.seed:
        name, label = f"{name}-metrics{metrics_seed}", f"{label} measured with seed {metrics_seed}"
    config = replace(
        config, verb="evaluate", checkpoint=training.role,
        metrics=replace(config.metrics, seed=metrics_seed), run=replace(config.run, name=name),
    )  # fmt: skip
    return Planned(label, training.role, training.train_seed, config, draw=draw)


def unlearning_runs(plan: Plan, configs: Sequence[JobConfig]) -> list[Planned]:
    """Return every method on all of its seeds; `configs` are like those of the plan."""
    return [
        _unlearning_run(plan, config, train_seed, seed, metrics_seed)
        for config in configs
        for train_seed, seed in plan.pairs
        for metrics_seed in plan.metrics_seeds
    ]


def _unlearning_run(
    plan: Plan, config: JobConfig, train_seed: int, seed: int, metrics_seed: int
) -> Planned:
    title = config.run.name
    name = seeded(title, train_seed, seed, sep="-").replace(" ", "-")
    label = seeded(title, train_seed, seed)
    if metrics_seed != plan.metrics_seeds[0]:
        name, label = f"{name}-metrics{metrics_seed}", f"{label} measured with seed {metrics_seed}"
    metrics = replace(config.metrics, seed=metrics_seed)
    ready = replace(placed(config, plan.out / "runs", name), seed=seed, metrics=metrics)
    variant = title.removeprefix(config.method.name).strip()
    return Planned(label, "method", train_seed, ready, variant)


def seeded(title: str, train_seed: int, seed: int, sep: str = " ") -> str:
    """Return a title with its seeds; the train seed is said where it is another.

    >>> seeded("dlfd", 3, 3), seeded("dlfd", 0, 3), seeded("dlfd", 0, 3, sep="-")
    ('dlfd seed 3', 'dlfd seed 3 on train seed 0', 'dlfd-seed3-train0')
    """
    if sep == "-":
        return f"{title}-seed{seed}" + (f"-train{train_seed}" if train_seed != seed else "")
    return f"{title} seed {seed}" + (f" on train seed {train_seed}" if train_seed != seed else "")


def parents_of(one: Planned) -> tuple[str, str]:
    """Return the labels of the Original and the Retrained that a run starts from."""
    original = model_label("original", one.train_seed)
    return original, model_label("retrained", one.train_seed, people_of(one))


def people_of(one: Planned) -> int | None:
    """Return the seed of the people a run is held against, where its train seed draws others."""
    return draw_of(one.config, one.train_seed) if one.draw is None else one.draw


def with_models(planned: Sequence[Planned], models: Mapping[str, Path]) -> list[Planned]:
    """Return the runs whose Original and Retrained are there, starting from them.

    A measurement starts from the model it measures. A trial gets no reference, for the gap to it
    reads the test set, and Retrained none, for it is the reference.

    Parameters
    ----------
    models : the directories of finished trainings by their label
    """
    ready = []
    for one in planned:
        original, retrained = (models.get(label) for label in parents_of(one))
        if original is not None and retrained is not None:
            checkpoint = retrained if one.role == "retrained" else original
            reference = None if one.role in ("trial", "retrained") else str(retrained)
            config = replace(one.config, checkpoint=str(checkpoint), reference=reference)
            ready.append(replace(one, config=config))
    return ready
