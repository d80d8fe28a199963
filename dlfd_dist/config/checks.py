"""The sentence a setting that is not allowed gets."""

from __future__ import annotations

import math
import re
from typing import Any

from ..errors import ConfigError
from ..registry import near_match


def require(condition: bool, setting: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{setting}={value} is not allowed: it must be {allowed}.")


def one_of(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{setting}={value} is not allowed: it must be one of {', '.join(allowed)}."
            + near_match(str(value), allowed)
        )


def chosen_on_val(setting: str, value: str) -> None:
    """Refuse a figure of the test set where something is chosen by a figure."""
    if {"test", "unseen"} & set(re.findall("[a-z]+", str(value).lower())):
        raise ConfigError(
            f"{setting}={value} is not allowed: it would choose by the test set, which is measured "
            "after every choice and only reported. Choose on val."
        )


METHOD_SCHEDULERS = ("constant", "cosine", "cosine_batch", "triangle")


def check_sgd(
    section: str, cfg: Any, *, schedulers: tuple[str, ...] = ("constant", "cosine")
) -> None:
    require(0 < cfg.lr < math.inf, f"{section}.lr", cfg.lr, "above 0 and finite")
    require(0 <= cfg.momentum < 1, f"{section}.momentum", cfg.momentum, "at least 0 and below 1")
    require(cfg.weight_decay >= 0, f"{section}.weight_decay", cfg.weight_decay, ">= 0")
    require(cfg.epochs >= 1, f"{section}.epochs", cfg.epochs, ">= 1")
    require(
        cfg.global_batch_size >= 1, f"{section}.global_batch_size", cfg.global_batch_size, ">= 1"
    )
    if cfg.clip_norm is not None:
        require(
            cfg.clip_norm > 0, f"{section}.clip_norm", cfg.clip_norm, "above 0, or null for none"
        )
    if cfg.max_steps is not None:
        require(cfg.max_steps >= 1, f"{section}.max_steps", cfg.max_steps, ">= 1, or null for all")
    one_of(f"{section}.lr_scheduler", cfg.lr_scheduler, schedulers)
    one_of(f"{section}.optimizer", cfg.optimizer, ("sgd", "adam"))
