"""Metrics of another package: importing this module registers them."""

from __future__ import annotations

from dlfd_dist.metrics import ModelOutputs, custom_metrics


@custom_metrics.register("spread")
def spread(model: ModelOutputs) -> dict[str, float]:
    """Spread of the losses on forgotten images, and how many people they show."""
    figures = {"forget_loss_spread": model.forget.losses.std()}
    if model.retrained is not None:
        figures["retrained_loss_spread"] = model.retrained.forget.losses.std()
    return figures | {"forget_people": len(set(model.forget.people))}
