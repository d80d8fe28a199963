"""The command line of a comparison becomes a `Comparison`; no file is touched here."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from dlfd_dist.compose import compose_job, expand_grid, known_settings, split_compare
from dlfd_dist.config import METHOD_CONFIGS, CompareConfig, DLFDConfig, JobConfig
from dlfd_dist.config.words import key_of, value_of
from dlfd_dist.errors import ConfigError
from dlfd_dist.objectives import OBJECTIVES, Objective

from .comparison import Comparison, with_settings
from .contrasts import named_contrasts

METRICS_SEED = "metrics.seed"
OFFICIAL = "dlfd_official"
"""The authors' loop: beside other methods it keeps its own steps, probes and choice of weights."""
SYNTHESISE = ("dlfd", OFFICIAL, "dlfm")
"""Methods that read the sections synthesis and ot."""
ITS_OWN = {"method.probe_every", "method.select"}


def comparison_of(overrides: Sequence[str]) -> Comparison:
    """Return the comparison that a command line asks for.

    Several values of a setting of unlearning make as many variants of the methods that read it.
    """
    compare, rest = split_compare(overrides)
    _refuse_models(rest)
    if "method" not in map(key_of, rest):
        rest.append("method=dlfd,finetune")
    # The last of several values counts, as everywhere on the command line.
    points = expand_grid(list({key_of(o): o for o in rest}.values()))
    variants = _compose_variants(points)
    configs = [_with_steps(compare, config) for config in variants.configs.values()]
    for config in configs:
        _require_kept_epoch(config)
        if compare.tune:
            require_resurfacing("compare", OBJECTIVES[compare.objective], config)
    given = frozenset(map(key_of, rest))
    _check_steps(compare, given, configs)
    comparison = Comparison(
        compare, configs, _pairs(compare, variants.seeds), given,
        [f"{name}: {err}" for name, err in variants.left_out.items()],
        _metrics_seeds(points, configs[0]),
    )  # fmt: skip
    if compare.contrasts is not None:
        named_contrasts(comparison)
    if not configs[0].names_people:
        raise ConfigError("Nobody to forget: give forget.request=FILE or forget.fraction=0.2.")
    return comparison


def _refuse_models(words: Sequence[str]) -> None:
    for name in ("checkpoint", "reference"):
        if name in map(key_of, words):
            raise ConfigError(
                f"A comparison trains Original and Retrained itself, for each train seed: leave "
                f"{name} out, or take 'dlfd unlearn', which unlearns a model of your own."
            )


class _Variants(NamedTuple):
    """The methods and variants of a grid, by the words that set them apart."""

    configs: dict[str, JobConfig]
    seeds: list[int]
    left_out: dict[str, ConfigError]
    """Variants that cannot be."""


def _compose_variants(points: Sequence[Sequence[str]]) -> _Variants:
    """Compose each variant once: points that differ by their seed alone differ by nothing else."""
    names = list(dict.fromkeys(value_of(point, "method") for point in points))
    listed = _listed(points)
    variants = _Variants({}, [], {})
    for point in points:
        kept = _reaching(point, names)
        identity = " ".join(o for o in kept if key_of(o) == "method" or key_of(o) in listed)
        seed = value_of(point, "seed", "0")
        is_known = identity in variants.configs or identity in variants.left_out
        if seed.isdecimal() and is_known:
            variants.seeds.append(int(seed))
            continue
        try:
            config = _compose(kept, listed)
        except ConfigError as err:
            if not listed:
                raise
            variants.left_out[identity] = err
            continue
        variants.configs.setdefault(identity, config)
        variants.seeds.append(config.seed)
    if not variants.configs:
        raise next(iter(variants.left_out.values()))
    return variants


def _with_steps(compare: CompareConfig, config: JobConfig) -> JobConfig:
    """Return a configuration with the optimiser steps that all methods take, if there are any."""
    if compare.steps is None or not config.method.takes_steps or config.method.name == OFFICIAL:
        return config
    return with_settings(config, {"method.steps": compare.steps})


def _require_kept_epoch(config: JobConfig) -> None:
    """Refuse a method that goes back to weights which Original will not keep."""
    if config.method.goes_back is None:
        return
    reader, setting = config.method.goes_back
    every, last = config.train.keep_every, config.train.epochs
    epoch = last - (num_back := getattr(config.method, setting))
    if every is not None and epoch > 0 and epoch % every == 0:
        return
    if epoch < 1:
        raise ConfigError(
            f"{reader} goes back {num_back} epochs, and Original is trained for "
            f"{last}: set method.{setting} below train.epochs."
        )
    raise ConfigError(
        f"{reader} goes back to epoch {epoch} of {last}, whose weights Original does not keep "
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


def _metrics_seeds(points: Sequence[Sequence[str]], config: JobConfig) -> tuple[int, ...]:
    texts = dict.fromkeys(value_of(point, METRICS_SEED) for point in points)
    given = [text for text in texts if text]
    for text in given:
        if not text.isdecimal():
            raise ConfigError(f"{METRICS_SEED}={text} is not allowed: it must be >= 0.")
    return tuple(map(int, given)) or (config.metrics.seed,)


def _listed(points: Sequence[Sequence[str]]) -> set[str]:
    """Return the settings with several values, besides method and seeds."""
    keys = {key_of(values[0]) for values in zip(*points, strict=True) if len(set(values)) > 1}
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
    own = _settings_of(value_of(point, "method"))
    return [o for o in point if key_of(o) in own or key_of(o) not in everything]


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
        if key_of(override) in listed and composed([o for o in kept if o != override]) != config
    ]
    return replace(config, run=replace(config.run, name=" ".join([config.method.name, *variant])))


def _shown(override: str) -> str:
    """Return a setting as a user writes it: Hydra's lists give True where true was typed."""
    key, value = override.removeprefix("method.").split("=", 1)
    return f"{key}={value.lower() if value in ('True', 'False') else value}"


@functools.cache
def _settings_of(method: str) -> set[str]:
    """Return the settings that a method reads.

    dlfd_official keeps the settings of its authors' loop, whatever other methods are given.
    """
    # An unknown method is refused by compose_job, which lists the known ones.
    names = known_settings(METHOD_CONFIGS.get(method, DLFDConfig))
    unread = () if method in SYNTHESISE else ("synthesis.", "ot.")
    known = {name for name in names if not name.startswith(unread)}
    return known - ITS_OWN if method == OFFICIAL else known
