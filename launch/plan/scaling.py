"""How the time of a step shrinks with ranks: what is computed, what is sent, what is not shared.

Pure arithmetic, checked against measured bytes by benchmarks/scaling.py, which also draws it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT_BYTES = 4
BACKWARD = 2.0
"""A backward pass in units of a forward pass; with respect to the images alone it is half."""
LOGGED_SCALARS = 6
"""Scalars of a step that ranks add up: loss, stop, what synthesis reports."""


@dataclass(frozen=True)
class Link:
    """What ranks say to each other over."""

    name: str
    bytes_per_s: float
    """of one rank, in each direction"""
    latency_s: float
    """of one message"""


IN_NODE = Link("shared memory or NVLink within a node", 5e9, 20e-6)
"""Modest on purpose: ranks should not be promised what a node may not have."""


@dataclass(frozen=True)
class Step:
    """One outer step of DLFD: `iterations` of synthesis, then an update; 0 for a plain step."""

    batch: int
    iterations: int
    width: int
    """of the features that are gathered"""
    parameters: int
    images_per_s: float
    """images forwarded per second on one rank"""
    transport_s: float = 0.0
    """one exact plan, which every rank solves by itself"""
    pass_s: float = 0.0
    """the least that a forward pass takes, however few its images: a GPU launches its kernels"""
    lag: bool = False
    """whether the plan of an iteration is solved while the next one runs (ot.lag=1)"""


def gather_bytes(step: Step) -> int:
    """Return what an iteration gathers: the features of the batch, on every rank."""
    return step.batch * step.width * FLOAT_BYTES


def step_bytes(step: Step, ranks: int) -> dict[str, float]:
    """Return the bytes that one rank receives in an outer step, by purpose.

    Features: of every iteration and once of the forget batch, all but its own. Gradients: those of
    a ring, 2 (W - 1) / W of the parameters.
    """
    others = (ranks - 1) / ranks
    gathers = step.iterations + (step.iterations > 0)
    return {
        "features": gathers * others * gather_bytes(step),
        "gradients": 2 * others * step.parameters * FLOAT_BYTES,
        "scalars": 2 * others * LOGGED_SCALARS * FLOAT_BYTES,
    }


def step_seconds(step: Step, ranks: int, link: Link = IN_NODE) -> float:
    """Return the time of an outer step on `ranks` ranks.

    The fullest shard counts. A gather stands between forward and plan, so nothing hides it, except
    that of the forget batch, which the first forward pass hides; the ring of the gradients is
    hidden by the second half of the update's backward pass.
    """
    forward = max(step.pass_s, math.ceil(step.batch / ranks) / step.images_per_s)
    sent = step_bytes(step, ranks)
    hops = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    gather = hops * link.latency_s + sent["features"] / link.bytes_per_s / (step.iterations + 1)
    iteration = forward * (1 + BACKWARD / 2) + gather
    waited = step.iterations * step.transport_s
    if step.lag and step.iterations:
        # The first iteration waits for its own plan and the second finds it there; each later one
        # waits for what is left of the plan before it.
        left = max(0.0, step.transport_s - iteration)
        waited = step.transport_s + max(0, step.iterations - 2) * left
    synthesis = step.iterations * iteration + waited
    forget = forward + max(0.0, gather - forward) if step.iterations else 0.0
    ring = 2 * (ranks - 1) * link.latency_s + sent["gradients"] / link.bytes_per_s
    update = forward * (1 + BACKWARD) + max(0.0, ring - forward * BACKWARD / 2)
    return synthesis + forget + update + hops * link.latency_s


def useful_ranks(step: Step, limit: int, link: Link = IN_NODE, *, efficiency: float = 0.5) -> int:
    """Return the most ranks, at most `limit`, that still do `efficiency` of a rank's work each."""
    alone = step_seconds(step, 1, link)
    fit = [w for w in range(1, limit + 1) if alone / step_seconds(step, w, link) >= efficiency * w]
    return max(fit)
