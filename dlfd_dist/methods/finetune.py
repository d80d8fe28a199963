"""Fine-tune: go on training on the retain set alone, and let the rest fade."""

from __future__ import annotations

from typing import Any

from .base import MethodContext, Probe, StepBatch, methods, set_training_mode


@methods.register("finetune")
class FineTune:
    """Classification loss on the retain set. The forget set is never read."""

    shuffle = True
    initial_probe = True
    equal_batches = False

    def __init__(self, context: MethodContext):
        self.context = context

    def step(self, batch: StepBatch, *, stop: bool) -> dict[str, float]:
        set_training_mode(self.context, batch)
        return self.context.updater.step(batch.images, batch.labels, total=batch.total, stop=stop)

    def observe(self, probe: Probe) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state, f"Fine-tune keeps no state, but found {sorted(state)}"
