"""What stands beside the figures of one run so that nobody reads more into them than they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .mia import low_power_reason

ONE_SEED = "One run with one seed: another seed may turn out differently."


def guards_of(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every guard with its `flag` (None: it could not be looked at) and its `reason`.

    Parameters
    ----------
    result : a run's figures, of which `mia` and `over_forgetting` are read
    """
    mia, over = result["mia"] or {}, result.get("over_forgetting") or {}
    return {
        "attack_floor": {"flag": mia.get("floor"), "reason": mia.get("floor_reason", "")},
        "over_forgetting": {"flag": over.get("flag"), "reason": over.get("reason", "")},
        "one_seed": {"flag": True, "reason": ONE_SEED},
        "attack_power": _power(mia),
    }


def _power(mia: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the attack could have missed, flagged where that is much."""
    least = mia.get("detectable_auc")
    if least is None:
        return {"flag": None, "reason": ""}
    reason = low_power_reason(least, mia["num_member_people"], mia["num_nonmember_people"])
    return {"flag": bool(reason), "reason": reason}
