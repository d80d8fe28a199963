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
from dlfd_dist.errors import ConfigError

from .compare import make_plan, model_label, training_runs, unlearning_runs
from .runs import Plan, Planned

KINDS = {"ulira": "U-LiRA", "klom": "KLoM"}
CONTROL_SEED = 1_000_000
"""How far the seed of a control lies from that of its Retrained."""
FRACTION = 0.5


@dataclass(frozen=True)
class AuditPlan:
    """An audit, before any of its runs has a model to start from."""

    kind: str
    """ulira or klom: which figures are shown; the runs are the same."""
    audit: AuditConfig
    plan: Plan
    """The comparison of the shadow models, one pair of seeds per shadow."""

    @property
    def out(self) -> Path:
        return self.plan.out

    @property
    def seeds(self) -> list[int]:
        return self.plan.train_seeds

    @property
    def first(self) -> JobConfig:
        return trainings(self)[0].config

    @property
    def draws(self) -> bool:
        """Whether every shadow forgets people of its own."""
        return self.first.forget.rounds


def plan_audit(words: Sequence[str]) -> AuditPlan:
    """Return the audit that a command line asks for: its kind, then settings."""
    kind, *overrides = words or [""]
    if kind not in KINDS:
        raise ConfigError(
            f"'dlfd audit {kind}' is not known: it takes leaks, {' or '.join(KINDS)}, then "
            "settings, as in dlfd audit ulira data=orl method=dlfd audit.models=16 run.dir=DIR."
        )
    audit, rest = split_audit(overrides)
    _refuse(rest)
    keys = [word.split("=", 1)[0].lstrip("+") for word in rest]
    rest += [] if "method" in keys else ["method=dlfd"]
    forgets = {"forget.request", "forget.fraction", "forget.published", "experiment", "task"}
    rest += [] if forgets & set(keys) else [f"forget.fraction={FRACTION}"]
    rest += [] if "run.dir" in keys else ["run.dir=runs/audit"]
    first = _first_seed(rest)
    seeds = range(first, first + audit.models)
    rest = [*(w for w in rest if _key(w) != "seed"), f"seed={','.join(map(str, seeds))}"]
    plan = make_plan(rest)
    if len(plan.metrics_seeds) > 1:
        raise ConfigError("metrics.seed lists several values, but an audit takes one.")
    return AuditPlan(kind, audit, plan)


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+")


def _refuse(words: Sequence[str]) -> None:
    for word in words:
        if _key(word).startswith("compare."):
            raise ConfigError(f"{_key(word)} is a setting of 'dlfd compare', not of 'dlfd audit'.")
        if _key(word) in ("forget.seed", "forget.rounds"):
            raise ConfigError(
                f"{_key(word)} is not a setting of 'dlfd audit': every shadow model draws the "
                "people it forgets. Give forget.fraction, or forget.request for the same people."
            )


def _first_seed(words: Sequence[str]) -> int:
    given = [word for word in words if _key(word) == "seed"]
    if not given:
        return 0
    text = given[-1].split("=", 1)[1]
    if not text.isdecimal() or int(text) >= CONTROL_SEED // 2:
        raise ConfigError(
            f"seed={text} is not allowed: an audit takes one seed from 0 to {CONTROL_SEED // 2}, "
            "that of its first shadow model; audit.models says how many follow."
        )
    return int(text)


def _shadowed(one: Planned) -> Planned:
    """Return a run with the people its shadow forgets."""
    forget = one.config.forget
    if forget.fraction is None or forget.published:
        # The same people for every shadow.
        forget = replace(forget, seed=0)
    else:
        forget = replace(forget, seed=one.train_seed, rounds=True)
    return replace(one, config=replace(one.config, forget=forget))


def trainings(plan: AuditPlan) -> list[Planned]:
    """Return Original, Retrained and control of every shadow, shadow by shadow."""
    planned = []
    for one in training_runs(plan.plan):
        planned.append(_shadowed(one))
        if one.role == "retrained" and plan.audit.control:
            planned.append(_shadowed(_control(one)))
    return planned


def _control(retrained: Planned) -> Planned:
    config = retrained.config
    run = replace(config.run, name=f"control-seed{retrained.train_seed}")
    config = replace(config, seed=config.seed + CONTROL_SEED, run=run)
    label = model_label("control", retrained.train_seed)
    return replace(retrained, label=label, role="control", config=config)


def unlearnings(plan: AuditPlan) -> list[Planned]:
    """Return every method on every shadow, shadow by shadow."""
    runs = [_shadowed(one) for one in unlearning_runs(plan.plan, plan.plan.configs)]
    return sorted(runs, key=lambda one: one.train_seed)


def title_of(one: Planned) -> str:
    """Return the world a run belongs to: original, retrained, control, or method and variant."""
    return " ".join(filter(None, (one.method, one.variant))) if one.method else one.role
