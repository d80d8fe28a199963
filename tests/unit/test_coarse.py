"""Without names a certificate gives no figure by which a number of images could be told."""

from __future__ import annotations

import pytest

from dlfd_dist.evidence.coarse import EXACT, coarse, share_step
from dlfd_dist.plain import band, band_ends, bands


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 8, 12, 44, 97, 200])
def test_every_number_of_images_of_a_band_gives_the_same_shares(number: int):
    """Whoever has a share tries every number of images: all must be as possible as the true one."""
    low, high = band_ends(number)
    images = {"forget": number, "retain": 5000}
    shares = {
        of: {coarse({"forget_accuracy": k / of}, images)["forget_accuracy"] for k in range(of + 1)}
        for of in range(low, high + 1)
    }
    assert low <= number <= high
    assert {band(of) for of in shares} == {band(number)}
    assert all(found == shares[number] for found in shares.values())


def test_a_share_of_many_images_stays_as_fine_as_its_error():
    for number in (1, 3, 44, 1050, 7000):
        assert share_step({"forget": number, "retain": 10**6}) <= 5 / number + 1e-12
    assert share_step({"forget": 5000, "retain": 3}) == share_step({"forget": 3, "retain": 5000})


def test_what_follows_from_numbers_of_images_is_a_band_or_left_out():
    figures = {
        "mia": {"num_members": 44, "num_nonmembers": 29, "interval": [0.46484, 0.60436]},
        "mia_paper_floor": 44 / 73, "over_forgetting": {"expected_share": 4 / 73, "flag": None},
        "test_accuracy": 18 / 29, "weight_change": {"overall": 0.00135}, "num_people": [2, 2],
    }  # fmt: skip
    assert coarse(figures, {"forget": 44, "retain": 102}) == {
        "mia": {"num_members": "33 to 64", "num_nonmembers": "17 to 32", "interval": [0.45, 0.6]},
        "mia_paper_floor": None, "over_forgetting": {"expected_share": None, "flag": None},
        "test_accuracy": 18 / 29, "weight_change": {"overall": 0.00135}, "num_people": [2, 2],
    }  # fmt: skip
    assert not any(
        "forget" in name or "retain" in name for name in EXACT - {"zero_retrain_forgetting"}
    )


def test_counts_of_any_depth_are_bands():
    assert bands({"exact": {"forget-retain": 37}, "pairs": 0, "similarity": 0.98}) == {
        "exact": {"forget-retain": "33 to 64"}, "pairs": "0", "similarity": 0.98,
    }  # fmt: skip
    assert bands(None) is None
    assert bands({"removed": True}) == {"removed": True}
