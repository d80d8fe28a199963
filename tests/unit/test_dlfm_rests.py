"""method.rests_by=equivalence: when matching rests, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlfd_dist.config import DLFMConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods import Probe
from dlfd_dist.metrics import Equivalence
from tests.fakes.method_lab import lab

PROBE = Probe(1, 0.8, 0.9, 0.0, 0.5, 0.8, auc_error=0.05, forgetting_score_se=0.05)
"""At chance: by the attack alone matching would rest."""


def seen(holds: bool | None) -> Probe:
    return replace(PROBE, equivalence=Equivalence(holds, "confidence", 0.0, [-0.1, 0.1]))


@pytest.mark.parametrize(
    ("rests_by", "found", "acts"),
    [
        ("equivalence", seen(True), False),
        ("equivalence", seen(False), True),
        ("equivalence", seen(None), True),  # too few people to show it
        ("attack", PROBE, False),
        ("attack", replace(PROBE, mia_auc=0.3), True),
    ],
)
def test_matching_rests_where_equivalence_is_shown_and_not_where_nothing_is(rests_by, found, acts):
    method = lab("dlfm", rests_by=rests_by).method
    for before in (True, False):
        method.matching = before
        method.observe(found)
        assert method.matching is acts


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rests_by": "chance"}, "must be one of attack, equivalence"),
        ({"margin": 0.5}, "method.margin=0.5 .* below 0.5"),
        ({"rests_by": "equivalence", "dynamic": False}, "leave one of them out"),
        ({"rests_by": "equivalence", "reference": "synthesised"}, "has none: set"),
    ],
)
def test_what_cannot_rest_by_equivalence_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        DLFMConfig(**settings)
