"""The results of a search: rows, Pareto front, importance, search.csv, best.yaml, results.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.compose import settings_text
from dlfd_dist.config import SearchConfig
from dlfd_dist.objectives import OBJECTIVES
from dlfd_dist.plain import csv_text, visible
from dlfd_dist.run_dir import RunDir, write_json, write_text

from .algorithms import distributions, nearest
from .plan import SearchPlan
from .progress import Ended

FIGURES = (
    "objective", "nomus", "nomus_se", "accuracy", "forgetting_score", "forgetting_score_se",
    "forget_accuracy", "retain_accuracy", "mia_auc", "step", "num_steps", "seconds",
    "device_seconds", "left_as_is",
)  # fmt: skip
FILES = ("search.csv", "best.yaml", "results.json", "report.html")
CONFIDENCE = 0.9
FOR_IMPORTANCE = 4
"""Fewer trials than this say nothing of any setting."""

Row = dict[str, Any]


def rows_of(ended: Sequence[Ended], out: Path) -> list[Row]:
    """Return a row per trial, in the order they were begun."""
    return [_row(number, trial, out) for number, trial in enumerate(ended)]


def _row(number: int, trial: Ended, out: Path) -> Row:
    figures = trial.figures
    run_dir = figures.get("run_dir") or None
    failed = figures.get("failed") or ""
    if trial.status == "ERROR":
        failed = _last_line(trial.error_file)
    state = (
        "failed" if failed
        else "finished" if figures.get("finished")
        else "stopped" if trial.status == "TERMINATED"
        else "unfinished"
    )  # fmt: skip
    known = {name: figures.get(name) if state != "failed" else None for name in FIGURES}
    if state != "finished":
        known["retain_accuracy"] = None
    return {
        "trial": number,
        "state": state,
        **known,
        "seed": trial.point.seed,
        "settings": trial.point.settings,
        "run_dir": str(Path(run_dir).relative_to(out)) if run_dir else None,
        "failed": failed,
    }


def _last_line(file: str | None) -> str:
    try:
        lines = Path(file or "").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    texts = [line.strip() for line in lines if line.strip()]
    return texts[-1][:300] if texts else "its worker ended."


def finished(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["state"] == "finished"]


def moved(rows: Sequence[Row]) -> list[Row]:
    """Return the finished trials that changed the model; the choice is among them."""
    return [row for row in finished(rows) if not row["left_as_is"]]


def front(rows: Sequence[Row]) -> list[int]:
    """Return the trials to choose from that none beats in both accuracy and forgetting score."""
    done = moved(rows)

    def is_beaten(row: Row) -> bool:
        a, f = row["accuracy"], row["forgetting_score"]
        return any(
            o["accuracy"] >= a
            and o["forgetting_score"] <= f
            and (o["accuracy"] > a or o["forgetting_score"] < f)
            for o in done
        )

    return [row["trial"] for row in done if not is_beaten(row)]


def ranked(rows: Sequence[Row], search: SearchConfig) -> list[Row]:
    """Return the trials to choose from, the best first; of several figures the front first."""
    objective = OBJECTIVES[search.objective]
    sign, on_front = objective.sign, set(front(rows)) if objective.several else set()
    return sorted(
        moved(rows),
        key=lambda row: (
            row["trial"] not in on_front and bool(on_front), sign * row["objective"], row["trial"],
        ),
    )  # fmt: skip


def candidates(rows: Sequence[Row], search: SearchConfig) -> list[Row]:
    """Return the trials to run again with other seeds: the method's own settings and the best.

    Of a population (pbt) the best alone: its first trial has not kept its settings.
    """
    own = next(iter(moved(rows[:1])), None) if search.scheduler != "pbt" else None
    best = [row for row in ranked(rows, search) if row is not own][: search.replicate]
    return [*best, *([own] if own is not None else [])] if search.replicate else []


def judged(candidate: Row, replicates: Sequence[Row], search: SearchConfig) -> dict[str, Any]:
    """Return what a candidate is worth over the seeds of its replicates, with the bound.

    The mean exceeds the bound (or, of a gap, stays below it) with 90 % confidence, by Student's t.
    With one seed there is a bound by the standard error of the measurement, which is known of nomus
    alone; of another objective the bound is None. The trial of the search does not count: it became
    a candidate partly by luck.
    """
    values = [row["objective"] for row in finished(replicates)]
    if not values:
        return {"trial": candidate["trial"], "values": [], "mean": None, "bound": None}
    mean = statistics.fmean(values)
    if len(values) == 1:
        error = finished(replicates)[0]["nomus_se"] if search.objective == "nomus" else None
        half = None if error is None else _t(10**6) * float(error)
    else:
        half = _t(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    bound = None if half is None else mean + OBJECTIVES[search.objective].sign * half
    return {"trial": candidate["trial"], "values": values, "mean": mean, "bound": bound}


def all_judged(
    plan: SearchPlan, chosen: Sequence[Row], replicates: list[Row]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return the replicates with the trials they repeat, and what each candidate is worth."""
    for row in replicates:
        row["trial"] = next(c["trial"] for c in chosen if c["settings"] == row["settings"])
    return replicates, [
        judged(
            row,
            [replicate for replicate in replicates if replicate["trial"] == row["trial"]],
            plan.search,
        )
        for row in chosen
    ]


def _t(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(CONFIDENCE, freedom))


def winner(
    rows: Sequence[Row],
    candidates: Sequence[Mapping[str, Any]],
    search: SearchConfig,
    untouched: float,
) -> Row | None:
    """Return the trial with the best bound; without replicates the best trial; None without any.

    Candidates without a bound come after those with one, by their means. Only those are chosen
    from whose mean, or value without replicates, is better than that of the untouched model.
    """
    objective = OBJECTIVES[search.objective]
    known = [candidate for candidate in candidates if candidate["mean"] is not None]
    if known:
        better = [
            candidate for candidate in known if objective.is_better(candidate["mean"], untouched)
        ]
        best = min(better, key=lambda c: _place(c, objective.sign), default=None)
        return next((row for row in rows if best and row["trial"] == best["trial"]), None)
    better = [r for r in ranked(rows, search) if objective.is_better(r["objective"], untouched)]
    return next(iter(better), None)


def _place(candidate: Mapping[str, Any], sign: int) -> tuple[bool, float, int]:
    bound = candidate["bound"]
    value = candidate["mean"] if bound is None else bound
    return bound is None, sign * value, candidate["trial"]


def bound_text(bound: float | None, digits: int) -> str:
    """Return the bound of a candidate in words."""
    return "no bound of one seed" if bound is None else f"bound {bound:.{digits}f}"


def why_none(rows: Sequence[Row], search: SearchConfig, untouched: float) -> str:
    """Return the sentence that stands in place of chosen settings."""
    if not finished(rows):
        return "No trial finished, so nothing was chosen."
    still = len(finished(rows)) - len(moved(rows))
    title = OBJECTIVES[search.objective].title
    return (
        f"No trial did better than leaving the model as it is ({title} {untouched:.4f}), so "
        "nothing was chosen" + (f"; {still} of them left it as it is." if still else ".")
    )


def importance(rows: Sequence[Row], plan: SearchPlan) -> dict[str, float]:
    """Return the share of each setting in the variance of the objective over the trials (fANOVA).

    Trials that were stopped count with what they had reached; empty with too few trials.
    """
    import optuna

    used = [r for r in rows if r["state"] in ("finished", "stopped") and r["objective"] is not None]
    spread = {row["objective"] for row in used}
    if len(used) < FOR_IMPORTANCE or len(spread) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sign = OBJECTIVES[plan.search.objective].sign
    study = optuna.create_study(direction="minimize" if sign > 0 else "maximize")
    spaces = distributions(plan.space)
    for row in used:
        params = {name: nearest(plan.space[name], row["settings"][name]) for name in spaces}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=spaces, value=float(row["objective"])
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=plan.search.seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def write_end(plan: SearchPlan, content: Mapping[str, Any], restarts: int) -> None:
    """Write the page and, where a trial finished, result.json: the search is finished."""
    from dlfd_dist.report.search import write_search_report

    write_search_report(plan.out)
    if not finished(content["rows"]):
        return
    rows = [*content["rows"], *content["replicates"]]
    result = {
        "verb": "search", "title": content["title"], "winner": content["winner"],
        "num_trials": len(content["rows"]), "wall_seconds": content["seconds"],
        "device_seconds": sum(row["device_seconds"] or 0.0 for row in rows), "restarts": restarts,
    }  # fmt: skip
    write_json(RunDir(plan.out).result, result)


def write_all(
    plan: SearchPlan,
    rows: Sequence[Row],
    replicates: Sequence[Row],
    candidates: Sequence[Mapping[str, Any]],
    untouched: float,
    seconds: float,
) -> dict[str, Any]:
    """Write search.csv, results.json and, where a trial was chosen, best.yaml; return the results.

    Parameters
    ----------
    untouched : the value of the model that the trials start from
    """
    best = winner(rows, candidates, plan.search, untouched)
    content = {
        **_settings(plan),
        "rows": list(rows),
        "replicates": list(replicates),
        "candidates": list(candidates),
        "winner": best["trial"] if best else None,
        "reason": "" if best else why_none(rows, plan.search, untouched),
        "untouched": untouched,
        "left_as_is": len(finished(rows)) - len(moved(rows)),
        "front": front(rows),
        "importance": importance(rows, plan),
        "seconds": seconds,
    }
    write_text(plan.out / "search.csv", _csv(rows, replicates, list(plan.space)))
    write_json(plan.out / "results.json", content)
    if best is None:
        # The best trial of one seed may be worse on the other seeds.
        (plan.out / "best.yaml").unlink(missing_ok=True)
    else:
        write_text(plan.out / "best.yaml", best_text(plan, best, candidates, untouched))
    return content


def _settings(plan: SearchPlan) -> dict[str, Any]:
    """Return what results.json says of the search itself."""
    objective = OBJECTIVES[plan.search.objective]
    return {
        "title": objective.title,
        "method": plan.config.method.name,
        "objective": objective.name,
        "mode": objective.mode,
        "search": vars(plan.search),
        "space": {name: str(values) for name, values in plan.space.items()},
        "log": [name for name, v in plan.space.items() if getattr(v, "log", False)],
    }


def _csv(rows: Sequence[Row], replicates: Sequence[Row], names: Sequence[str]) -> str:
    """Return every trial and every replicate as CSV."""
    fields = ["kind", "trial", "state", *FIGURES, "seed", *names, "run_dir", "failed"]
    lines = [
        {"kind": kind, **row, **row["settings"]}
        for kind, group in (("trial", rows), ("replicate", replicates))
        for row in group
    ]
    return csv_text([fields, *([line.get(field) for field in fields] for line in lines)])


def best_text(
    plan: SearchPlan, best: Row, candidates: Sequence[Mapping[str, Any]], untouched: float
) -> str:
    """Return the chosen settings as +tuned= reads them, with where they come from."""
    method, title = plan.config.method.name, OBJECTIVES[plan.search.objective].title
    values: dict[str, Any] = {"objective": title, "method": {"name": method}}
    for name, value in best["settings"].items():
        section, key = name.split(".")
        values.setdefault(section, {})[key] = value
    lines = [
        f"trial {best['trial']} of {plan.search.num_samples}, {best['run_dir']}",
        f"{title}: {best['objective']:.4f} in the search, {untouched:.4f} of the untouched model",
    ]
    for candidate in candidates:
        if candidate["trial"] == best["trial"] and candidate["mean"] is not None:
            lines.append(
                f"mean of {len(candidate['values'])} other seeds {candidate['mean']:.4f}, "
                + (f"{CONFIDENCE:.0%} " if candidate["bound"] is not None else "")
                + bound_text(candidate["bound"], 4)
            )
    if plan.search.scheduler == "pbt":
        lines.append(
            "pbt: these settings held at the end of a run that others began (lineage.json)"
        )
    head = "".join(f"# {visible(line.replace(chr(10), ' '))}\n" for line in lines)
    return f"{head}# dlfd unlearn method={method} +tuned=THIS_FILE ...\n{settings_text(values)}"
