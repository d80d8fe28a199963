"""What can be said of forgetting by whoever has no Retrained: forgotten against unseen people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import stdtrit

from ..plain import counted
from .people import MIN_PEOPLE

MARGIN = 0.05
"""An attack within +-MARGIN of guessing is as good as none."""
GONE, NOT_SHOWN, STILL_THERE = "gone", "not shown", "still there"
CHANCE = 0.5
NOT_SAID = (
    "Whether the model answers on the forgotten people as one that never saw them would.",
    "Whether a loss of accuracy is the price of forgetting these people or of the method.",
    "Whether the attack would also come out at chance on a model that never saw them: people who "
    "are easier or harder than the unseen ones are told apart without any memory of them.",
)
"""What nobody can say without Retrained."""


@dataclass(frozen=True)
class WithoutRetrained:
    """The verdict, and what it rests on.

    verdict : gone, not shown or still there
    figures : per figure of the attack (accuracy, auc) its value, the 90 % interval of the two
        one-sided tests, and whether it lies within the margin of guessing
    """

    verdict: str
    reason: str
    figures: dict[str, dict[str, Any]]
    num_people: list[int] | None
    margin: float = MARGIN

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def without_retrained(attack: Mapping[str, Any]) -> WithoutRetrained:
    """Return whether the forgotten people are gone, judged by the attack alone.

    Gone: accuracy and AUC both lie within +-MARGIN of guessing by two one-sided tests at 5 %, which
    is that their 90 % intervals over people do. Still there: an interval of 95 % leaves guessing
    out. Else, and with fewer than MIN_PEOPLE people on a side, it is not shown.

    Parameters
    ----------
    attack : `mia` of a result; its intervals are over people
    """
    counts = [attack.get("num_member_people"), attack.get("num_nonmember_people")]
    known = [int(count) for count in counts if count is not None]
    people = known if len(known) == 2 else None
    freedom = max(1, min(people) - 1) if people else 1
    figures = {
        name: _figure(attack[name], attack[interval], freedom)
        for name, interval in (("accuracy", "interval"), ("auc", "auc_interval"))
    }
    if people is None:
        return WithoutRetrained(
            NOT_SHOWN, "It is not known how many people were attacked.", figures, None
        )
    if min(people) < MIN_PEOPLE:
        reason = (
            f"{counted(min(people), 'person', 'people')} on a side cannot tell: it takes "
            f"{MIN_PEOPLE} for an interval over people that holds what it promises."
        )
        return WithoutRetrained(NOT_SHOWN, reason, figures, people)
    if all(figure["within"] for figure in figures.values()):
        reason = f"Accuracy and AUC of the attack lie within {MARGIN:g} of guessing."
        return WithoutRetrained(GONE, reason, figures, people)
    apart = [name for name, figure in figures.items() if figure["apart"]]
    if apart:
        words = _words(figures, apart)
        reason = f"The attack tells the forgotten people from unseen ones: {words}."
        return WithoutRetrained(STILL_THERE, reason, figures, people)
    wide = [name for name, figure in figures.items() if not figure["within"]]
    reason = (
        f"Neither a trace nor its absence is shown: {_words(figures, wide)} is no clear difference "
        f"from guessing and may lie more than {MARGIN:g} from it."
    )
    return WithoutRetrained(NOT_SHOWN, reason, figures, people)


def _figure(value: float, interval: list[float], freedom: int) -> dict[str, Any]:
    """Return a figure with its 90 % interval, shrunk from that of 95 % about the value."""
    ratio = float(stdtrit(freedom, 0.95) / stdtrit(freedom, 0.975))
    low, high = (value + ratio * (bound - value) for bound in interval)
    return {
        "value": value,
        "interval_90": [low, high],
        "within": low > CHANCE - MARGIN and high < CHANCE + MARGIN,
        "apart": interval[0] > CHANCE or interval[1] < CHANCE,
    }


def _words(figures: Mapping[str, Mapping[str, Any]], names: list[str]) -> str:
    titles = {"accuracy": "an accuracy", "auc": "an AUC"}
    return " and ".join(
        f"{titles[name]} of {figures[name]['value']:.3f} (90 % interval "
        f"{figures[name]['interval_90'][0]:.3f} to {figures[name]['interval_90'][1]:.3f})"
        for name in names
    )
