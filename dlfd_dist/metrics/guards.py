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
    result : a run's figures, of which `mia`, `over_forgetting`, `against_original` and `alike` are
        read
    """
    mia, over = result["mia"] or {}, result.get("over_forgetting") or {}
    moved, alike = (result.get(name) or {} for name in ("against_original", "alike"))
    return {
        "attack_floor": {"flag": mia.get("floor"), "reason": mia.get("floor_reason", "")},
        "over_forgetting": {"flag": over.get("flag"), "reason": over.get("reason", "")},
        "one_seed": {"flag": True, "reason": ONE_SEED},
        "attack_power": _power(mia),
        **{name: _told(moved, name) for name in ("left_as_is", "only_confidence")},
        "alike": _told(alike, "flag"),
    }


def _told(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    flag = section.get(name)
    return {"flag": flag, "reason": section["reason"] if flag else ""}


def _power(mia: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the attack could have missed, flagged where that is much."""
    least = mia.get("detectable_auc")
    if least is None:
        return {"flag": None, "reason": ""}
    reason = low_power_reason(least, mia["num_member_people"], mia["num_nonmember_people"])
    return {"flag": bool(reason), "reason": reason}
