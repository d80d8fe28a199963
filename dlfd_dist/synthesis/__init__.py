"""Synthesis of retain images far from the forget set."""

from .album import Album
from .floor import (
    floor_flops,
    floor_iterations,
    interleaved,
    peak_bandwidth,
    peak_flops,
    traffic_bytes,
)
from .perturb import Objective, Synthesised, SynthesisLoss, frozen, layer_output, perturb
from .schedule import linear_weight

__all__ = [
    "Album",
    "Objective",
    "SynthesisLoss",
    "Synthesised",
    "floor_flops",
    "floor_iterations",
    "frozen",
    "interleaved",
    "layer_output",
    "linear_weight",
    "peak_bandwidth",
    "peak_flops",
    "perturb",
    "traffic_bytes",
]
