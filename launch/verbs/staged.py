"""What `dlfd compare` and `dlfd audit` share: checks before the first run, and the dry run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlfd_dist.config import JobConfig, to_dict
from dlfd_dist.data.loaders import ResolvedRows, RowReader
from dlfd_dist.jobs.context import check_enough
from dlfd_dist.jobs.models import model_outline
from dlfd_dist.jobs.plan import plan as plan_run
from dlfd_dist.methods import methods
from dlfd_dist.runtime.env import refuse_ranks

from ..dry_run import dry_run_text
from ..execute.here import num_workers
from ..plan.comparison import Comparison
from ..plan.runs import Run
from .run import print_dry_run


def check_configs(verb: str, comparison: Comparison, configs: Iterable[JobConfig]) -> None:
    """Refuse runs that no machine could run, and name the variants that were left out."""
    refuse_ranks(f"dlfd {verb}")
    for config in configs:
        config.validate(config.runtime.world_size)
    for variant in comparison.left_out:
        print(f"left out: {variant}", file=sys.stderr)


def check_methods(comparison: Comparison, first: Run, rows: ResolvedRows) -> None:
    """Refuse a method that cannot run with the model."""
    model = model_outline(first.config, rows)
    for config in comparison.configs:
        methods.get(config.method.name).check(config.method, model)


def check_images(runs: Iterable[Run], read: RowReader) -> None:
    """Refuse runs whose parts have fewer images than the run needs."""
    for run in runs:
        rows = read(run.config.data, run.config.drawn_forget)
        check_enough(run.config, rows, run.config.runtime.world_size)


def show_plan(
    comparison: Comparison, first: Run, values: Mapping[str, Any], lines: Sequence[str],
    files: Sequence[str], *, as_json: bool,
) -> None:  # fmt: skip
    """Print a dry run.

    Parameters
    ----------
    first : the first training, whose configuration is shown
    values, lines : what is shown beside it, as JSON and as text
    """
    files = [str(comparison.out / name) for name in files]
    if not as_json:
        print_dry_run([first.config], as_json=False)
    shown = {
        "config": to_dict(comparison.configs[0]), "plan": plan_run(first.config)["plan"], **values,
    }  # fmt: skip
    print(dry_run_text(shown, lines, files, as_json=as_json))


def at_a_time(comparison: Comparison, workers: int | None) -> str:
    """Return how many runs are done at once, in words."""
    world_size = comparison.configs[0].runtime.world_size
    if world_size > 1:
        return f"one at a time on {world_size} ranks"
    return f"{num_workers(comparison.configs[0], workers)} at a time"


def show_missing(missing: Sequence[str], failures: Mapping[str, str]) -> None:
    """Print the runs without a result, each with the reason."""
    for label in missing:
        why = failures.get(label, "a run that it needs did not finish.")
        print(f"not finished: {label}: {why}")
