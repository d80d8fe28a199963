"""One row per method: means, 95 % intervals over seeds, flags; and what they allow to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import METHOD_CONFIGS, given_settings, read_by
from ..metrics.without_retrained import GONE, NOT_SHOWN, STILL_THERE
from .contrasts import Contrast, contrasts_of, settings_of
from .gaps import with_gaps
from .gate import Gate, gate_of
from .groups import group_lines
from .intervals import is_crossed, over_seeds, seeds_mean
from .measured import CUSTOM, GAP_INTERVALS, METRICS, at, custom_of
from .records import DLFD, DLFD_OFFICIAL, FINE_TUNE, ORIGINAL, RETRAINED, RunRecord, of_label

# Settings in which the seeds of one row may differ.
_PER_SEED = ("seed", "checkpoint", "reference", "run", "runtime")

AXES = {
    "train_seeds": "train seeds",
    "seeds": "seeds of unlearning",
    "metrics_seeds": "evaluation seeds",
}
"""The axes of seeds, outermost first, and what they are called."""


@dataclass(frozen=True)
class Findings:
    """What the rows of a table allow to say.

    gate : None of reports that compare nothing with Original and Retrained
    """

    gate: Gate | None
    contrasts: list[Contrast]

    def to_dict(self) -> dict[str, Any]:
        return {
            "gate": self.gate and self.gate.to_dict(),
            "contrasts": [contrast.to_dict() for contrast in self.contrasts],
        }


def findings_of(
    records: Sequence[RunRecord], contrasts: Mapping[str, Any] | None = None
) -> Findings:
    """Return the gate and the contrasts of the runs of a table.

    Parameters
    ----------
    contrasts : those named before the runs (`Comparison.contrasts`); None: the defaults
    """
    records = with_gaps(records)
    pairs, margin = settings_of(contrasts, labels_in_order(records))
    return Findings(gate_of(records), contrasts_of(records, pairs, margin))


def summarise(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row per method label.

    `<metric>` is the mean over train seeds of the means over their runs, `<metric>_interval` its
    [lo, hi] over seeds (`intervals.over_seeds`), or over runs where `one_training` says that all
    unlearn one trained model; None where none can be given, `few_crossed` because fewer than five
    seeds were crossed. The parts of the gap of a single run have their interval over people.
    `floor`, `low_power`, `over_forgetting`, `left_as_is`, `only_confidence` and `alike` say that
    the flag of that name fired in most of the runs, `relearns_late` that the relearn time is a
    lower bound, for a run was not back in the steps given. `without_retrained` is the verdict of
    all runs, `attack` the attack that counted, `optimiser_steps` the different numbers of steps
    that the runs took, empty where they are unknown. Rows of a single run also carry its intervals
    over people, `attack_interval` and `attack_auc_interval`. `custom_metrics` names the metrics of
    other packages that some row has, which are metrics of every row.
    """
    records = with_gaps(records)
    custom = custom_of(record.result for record in records)
    rows = [_row(label, of_label(records, label), custom) for label in labels_in_order(records)]
    for row in rows:
        if row["method"] == RETRAINED:  # its gaps share their ends: no independent values
            row.update(gap_to_retrained_interval=None)
    return rows


def labels_in_order(records: Sequence[RunRecord]) -> list[str]:
    """Return the method labels: Original, Retrained, Fine-tune, others as they come, DLFD last."""
    return in_order([record.label for record in records])


def in_order(labels: Sequence[str]) -> list[str]:
    """Return labels in the order of the rows of a table, each once."""
    return sorted(dict.fromkeys(labels), key=_order)


def _order(label: str) -> int:
    first, last = (ORIGINAL, RETRAINED, FINE_TUNE), (DLFD_OFFICIAL, DLFD)
    if label in first:
        return first.index(label) - len(first)
    return last.index(label) + 1 if label in last else 0


def _row(label: str, records: Sequence[RunRecord], custom: Sequence[str]) -> dict[str, Any]:
    seeds, train_seeds = ({getattr(r, n) for r in records} for n in ("seed", "train_seed"))
    only = records[0].mia if len(records) == 1 else {}
    over = [record.over_forgetting for record in records]
    row: dict[str, Any] = {
        "method": label,
        "unlearned": records[0].unlearned,
        "seeds": sorted(seeds),
        "train_seeds": sorted(train_seeds),
        "num_seeds": len(seeds),
        "one_seed": len(seeds) == 1 == len(train_seeds),
        "one_training": len(seeds) > 1 == len(train_seeds),
        "metrics_seeds": sorted({record.metrics_seed for record in records}),
        "crossed": any(record.seed != record.train_seed for record in records),
        "few_crossed": False,
        **_flag("floor", [(r.mia.get("floor"), r.mia.get("floor_reason")) for r in records]),
        "within_labels": any(record.mia.get("within_labels") for record in records),
        **_flag("low_power", [(bool(r.low_power), r.low_power) for r in records]),
        "relearns_late": any(record.relearns_late for record in records),
        **_flag("over_forgetting", [(o.get("flag"), o.get("reason")) for o in over]),
        **_instead(records),
        "without_retrained": _without_retrained(records),
        "mixed_settings": len(set(map(_settings, _of_first_verb(records)))) > 1,
        "group_lines": group_lines(records),
        "attack": _attack_named(records),
        "optimiser_steps": sorted({s for r in records if (s := _optimiser_steps(r)) is not None}),
        "reference_people": records[0].result.get("reference_people"),
        "attack_interval": only.get("interval"),
        "attack_auc_interval": only.get("auc_interval"),
    }
    row["axes"] = _axes(row)
    row[CUSTOM] = custom
    for metric in (*METRICS, *custom):
        values = [(r.train_seed, r.seed, v) for r in records if (v := r.value(metric)) is not None]
        estimate = over_seeds(values)
        row[metric] = seeds_mean(values)
        row[f"{metric}_interval"] = estimate and estimate.interval()
        crossed = is_crossed((train_seed, seed) for train_seed, seed, _ in values)
        row["few_crossed"] |= crossed and estimate is None
    if len(records) == 1:
        people = {m: at(records[0].result, path) for m, path in GAP_INTERVALS.items()}
        row.update({f"{metric}_interval": values for metric, values in people.items()})
    return row


def _optimiser_steps(record: RunRecord) -> int | None:
    """Return the steps that an unlearning run took, 0 of a method without any; None if unknown."""
    if not record.unlearned:
        return None
    method = record.config.get("method") or {}
    known = METHOD_CONFIGS.get(method["name"])
    if known is not None and not known.takes_steps:
        return 0
    # Under method.steps noise steps and the like come on top, and are the method's own.
    return method.get("steps") or record.result.get("num_steps")


def _attack_named(records: Sequence[RunRecord]) -> str | None:
    """Return the attack that counted in most runs, such as `correctness (2 of 3)`."""
    names = [name for record in records if (name := record.mia.get("attack"))]
    if not names:
        return None
    most = max(dict.fromkeys(names), key=names.count)
    count = names.count(most)
    text = most.replace("_", " ")
    return text if count == len(names) else f"{text} ({count} of {len(names)})"


def _instead(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the flags of what a method did in place of forgetting."""
    moved, alike = (
        [record.result.get(name) or {} for record in records]
        for name in ("against_original", "alike")
    )
    return {
        **_flag("left_as_is", [(m.get("left_as_is"), m.get("reason")) for m in moved]),
        **_flag("only_confidence", [(m.get("only_confidence"), m.get("reason")) for m in moved]),
        **_flag("alike", [(a.get("flag"), a.get("reason")) for a in alike]),
    }


def _without_retrained(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """Return the verdict of all runs: gone where all say so, still there where most do."""
    judged = [w for record in records if (w := record.result.get("without_retrained"))]
    if not judged:
        return None
    verdicts = [judgement["verdict"] for judgement in judged]
    most = 2 * verdicts.count(STILL_THERE) > len(verdicts)
    verdict = STILL_THERE if most else GONE if set(verdicts) == {GONE} else NOT_SHOWN
    return {
        **next((judgement for judgement in judged if judgement["verdict"] == verdict), judged[0]),
        "verdict": verdict,
    }


def _axes(row: dict[str, Any]) -> list[str]:
    """Return the axes of seeds that vary; a seed that goes with its train seed is no axis."""
    varying = [name for name in AXES if len(row[name]) > 1]
    alone = not row["crossed"] and "train_seeds" in varying
    return [name for name in varying if not (alone and name == "seeds")]


def _flag(name: str, flags: Sequence[tuple[bool | None, str | None]]) -> dict[str, Any]:
    """Return whether a flag fired in most of the runs, and the first reason given."""
    reasons = [reason or "" for fired, reason in flags if fired]
    return {name: 2 * len(reasons) > len(flags), f"{name}_reason": next(iter(reasons), "")}


def _of_first_verb(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Leave out the further measurements of a trained model."""
    return [record for record in records if record.config["verb"] == records[0].config["verb"]]


def _settings(record: RunRecord) -> str:
    read = read_by(record.config["verb"], given_settings(record.config))
    values = {key: v for key, v in read.items() if key not in _PER_SEED}
    for section in ("metrics", "forget"):
        values[section] = {k: v for k, v in values.get(section, {}).items() if k != "seed"}
    return json.dumps(values, sort_keys=True, default=str)
