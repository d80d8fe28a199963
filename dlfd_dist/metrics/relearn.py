"""Relearn time: how soon a model that forgot is back at what it knew."""

from __future__ import annotations

from collections.abc import Sequence


def relearn_limit(original_loss: float, *, alpha: float = 0.1) -> float:
    """Return the forget loss at which a model counts as back."""
    return (1 + alpha) * original_loss


def relearn_time(
    losses: Sequence[float], original_loss: float, *, alpha: float = 0.1
) -> int | None:
    """Return the first step at which the forget loss is within (1 + alpha) of Original's.

    A model that only hides what it knew is back in a few steps; compare with Retrained, which has
    to learn it anew. None: not in the steps given. Source: Tarun et al. 2021 (UNSIR), "anamnesis
    index"; Golatkar et al. 2020.

    Parameters
    ----------
    losses : forget loss before the first relearning step, and after each
    original_loss : forget loss of the model before unlearning, in the same unit

    >>> relearn_time([2.0, 0.5, 0.21, 0.1], 0.2)
    2
    """
    limit = relearn_limit(original_loss, alpha=alpha)
    return next((step for step, loss in enumerate(losses) if loss <= limit), None)


def anamnesis_index(steps: int, retrained_steps: int) -> float | None:
    """Return the relearn time over that of Retrained; 1 is best, near 0 means it was only hidden.

    None where Retrained is at once as good. Source: Tarun et al. 2021 (UNSIR).
    """
    return steps / retrained_steps if retrained_steps else None
