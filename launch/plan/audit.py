"""What an ensemble audit consists of: shadow models, and the people each of them forgets.

Shadow k has the seed `seed + k` throughout: Original is trained on everybody, a method makes it
forget the people of k, and Retrained never saw them. So both worlds of Hayes et al. 2024
(algorithm 1) hold one model of each k for every person whom k forgets. With forget.request all
shadows forget the same people; with forget.fraction they are drawn anew, in rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlfd_dist.compose import split_audit
from dlfd_dist.config import AuditConfig, JobConfig
from dlfd_dist.config.words import key_of, value_of
from dlfd_dist.errors import ConfigError

from .compare import comparison_of
from .comparison import Comparison, model_label, training_runs, unlearning_runs
from .runs import Run

KINDS = {"ulira": "U-LiRA", "klom": "KLoM"}
CONTROL_SEED = 1_000_000
"""How far the seed of a control lies from that of its Retrained."""
FRACTION = 0.5


@dataclass(frozen=True)
class Audit:
    """What `dlfd audit` was asked for, from which the runs follow."""

    kind: str
    """ulira or klom: which figures are shown; the runs are the same."""
    settings: AuditConfig
    comparison: Comparison
    """The comparison of the shadow models, one pair of seeds per shadow."""

    @property
    def out(self) -> Path:
        return self.comparison.out

    @property
    def seeds(self) -> list[int]:
        return self.comparison.train_seeds

    @property
    def first(self) -> JobConfig:
        return trainings(self)[0].config

    @property
    def draws(self) -> bool:
        """Whether every shadow forgets people of its own."""
        return self.first.forget.rounds


def audit_of(words: Sequence[str]) -> Audit:
    """Return the audit that a command line asks for: its kind, then settings."""
    kind, *overrides = words or [""]
    if kind not in KINDS:
        raise ConfigError(
            f"'dlfd audit {kind}' is not known: it takes leaks, {' or '.join(KINDS)}, then "
            "settings, as in dlfd audit ulira data=orl method=dlfd audit.models=16 run.dir=DIR."
        )
    audit, rest = split_audit(overrides)
    _refuse(rest)
    keys = [key_of(word) for word in rest]
    rest += [] if "method" in keys else ["method=dlfd"]
    forgets = {"forget.request", "forget.fraction", "forget.published", "experiment", "task"}
    rest += [] if forgets & set(keys) else [f"forget.fraction={FRACTION}"]
    rest += [] if "run.dir" in keys else ["run.dir=runs/audit"]
    first = _first_seed(rest)
    seeds = range(first, first + audit.models)
    rest = [*(w for w in rest if key_of(w) != "seed"), f"seed={','.join(map(str, seeds))}"]
    comparison = comparison_of(rest)
    if len(comparison.metrics_seeds) > 1:
        raise ConfigError("metrics.seed lists several values, but an audit takes one.")
    return Audit(kind, audit, comparison)


def _refuse(words: Sequence[str]) -> None:
    for word in words:
        if key_of(word).startswith("compare."):
            raise ConfigError(
                f"{key_of(word)} is a setting of 'dlfd compare', not of 'dlfd audit'."
            )
        if key_of(word) in ("forget.seed", "forget.rounds"):
            raise ConfigError(
                f"{key_of(word)} is not a setting of 'dlfd audit': every shadow model draws the "
                "people it forgets. Give forget.fraction, or forget.request for the same people."
            )


def _first_seed(words: Sequence[str]) -> int:
    text = value_of(words, "seed", "0")
    if not text.isdecimal() or int(text) >= CONTROL_SEED // 2:
        raise ConfigError(
            f"seed={text} is not allowed: an audit takes one seed from 0 to {CONTROL_SEED // 2}, "
            "that of its first shadow model; audit.models says how many follow."
        )
    return int(text)


def _shadowed(run: Run) -> Run:
    """Return a run with the people its shadow forgets."""
    forget = run.config.forget
    if forget.fraction is None or forget.published:
        # The same people for every shadow.
        forget = replace(forget, seed=0)
    else:
        forget = replace(forget, seed=run.train_seed, rounds=True)
    return run.with_config(replace(run.config, forget=forget))


def trainings(audit: Audit) -> list[Run]:
    """Return Original, Retrained and control of every shadow, shadow by shadow."""
    planned = []
    for run in training_runs(audit.comparison):
        planned.append(_shadowed(run))
        if run.role == "retrained" and audit.settings.control:
            planned.append(_shadowed(_control(run)))
    return planned


def _control(retrained: Run) -> Run:
    config = retrained.config
    run = replace(config.run, name=f"control-seed{retrained.train_seed}")
    config = replace(config, seed=config.seed + CONTROL_SEED, run=run)
    label = model_label("control", retrained.train_seed)
    return replace(retrained, label=label, role="control", settings=config)


def unlearnings(audit: Audit) -> list[Run]:
    """Return every method on every shadow, shadow by shadow."""
    runs = unlearning_runs(audit.comparison)
    return sorted(map(_shadowed, runs), key=lambda run: run.train_seed)
