"""dlfd submit: the campaign's jobs are written, queued and chained; nothing is done twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dlfd_dist.access import for_others_to_read_only, refuse_foreign
from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.provenance import current
from dlfd_dist.resources import checkout
from dlfd_dist.run_dir import write_text

from ..children import mind_working_directory
from ..execute import slurm
from ..execute.batches import Batch
from ..execute.code import snapshot, store
from ..execute.journal import Ledger, Placement
from ..execute.process import is_local
from ..execute.queues import SlurmQueue, settle, start_locally
from ..execute.states import directories_of, live
from ..execute.submission import Submission, job_of
from ..plan.campaign import plan_campaign
from ..plan.runs import Plan
from .shown import show_answers, show_plan, show_submission
from .task import CampaignTask

VERBS = ("train", "unlearn", "evaluate", "audit", "compare", "search")


def run_submit(words: Sequence[str], *, dry_run: bool, test_only: bool, as_json: bool) -> int:
    """Submit a campaign, or show what would be submitted."""
    mind_working_directory()
    verb, *overrides = words or [""]
    plan = plan_of(verb, overrides)
    for variant in plan.left_out:
        print(f"left out: {variant}", file=sys.stderr)
    _warn_of_local_disk(plan)
    if plan.warning:
        print(f"warning: {plan.warning}", file=sys.stderr)
    if dry_run:
        show_plan(_look(plan), as_json=as_json)
        return 0
    if plan.cluster.kind == "slurm":
        slurm.check_cluster(plan.cluster, max(run.spec.nodes for run in plan.runs))
    if test_only:
        submission = _look(plan)
        answers = {
            batch.name: slurm.test_only(submission.job(batch).executor().text())
            for batch in [*submission.batches, submission.report]
        }
        show_answers(submission, answers, as_json=as_json)
        return 0
    submission = submit(plan)
    show_submission(submission, as_json=as_json)
    return 0


def plan_of(verb: str, words: Sequence[str]) -> Plan:
    """Return what `dlfd submit VERB ...` asks for; nothing is written."""
    if verb not in VERBS:
        raise ConfigError(
            f"'dlfd submit {verb}' is not known: it takes {', '.join(VERBS[:-1])} or {VERBS[-1]}."
        )
    if verb != "search":
        return plan_campaign(verb, words)
    from dlfd_dist.compose import split_cluster

    from ..search.submit import search_campaign

    cluster, rest = split_cluster(words)
    return search_campaign(rest, cluster)


def _warn_of_local_disk(plan: Plan) -> None:
    if plan.cluster.kind == "local":
        return
    for local in plan.cluster.local_paths:
        if plan.path.is_relative_to(local):
            print(
                f"warning: run.dir={plan.path} lies under {local}, which other nodes often do "
                "not see: a campaign needs a file system that all nodes share.",
                file=sys.stderr,
            )
            return


def _look(plan: Plan) -> Submission:
    """Return what would be submitted; nothing is written, and without SLURM nothing is asked."""
    ledger = Ledger(plan.path)
    joined = live(ledger) if ledger.file.is_file() and slurm.has("squeue") else {}
    return _submission(plan, ledger, joined)


def _submission(plan: Plan, ledger: Ledger, joined: Mapping[str, Placement]) -> Submission:
    wanted = {run.key for run in plan.runs}
    ids = [place.job_id.split("_")[0] for place in joined.values()]
    busy = list(dict.fromkeys(job_id for job_id in ids if not is_local(job_id)))
    joined = {key: place for key, place in joined.items() if key in wanted}
    number = 1 + sum(event["event"] == "planned" for event in ledger.events())
    code_dir = checkout() if not plan.cluster.prefix else None
    # Runs that wait for trials have directories that no plan knows.
    begun = directories_of(plan.path, ledger, plan.runs)
    finished = replace(plan, directories=begun | plan.directories).finished()
    return Submission(plan, number, finished, joined, busy, code_dir)


def submit(plan: Plan) -> Submission:
    """Queue what is neither finished nor queued; the ledger is held meanwhile."""
    _ask_first(plan)
    # Whoever writes plan, code or jobs of a campaign decides what runs as this user.
    with for_others_to_read_only():
        _create(plan.path)
        ledger = Ledger(plan.path)
        with ledger.locked():
            return _queue(plan, ledger)


def _queue(plan: Plan, ledger: Ledger) -> Submission:
    settle(ledger, CampaignTask)
    submission = _submission(plan, ledger, live(ledger))
    _record(plan, ledger, submission)
    if plan.cluster.kind == "local":
        start_locally(submission, ledger, CampaignTask)
    else:
        submission.hand_to(SlurmQueue(submission, ledger, CampaignTask))
    return submission


def _ask_first(plan: Plan) -> None:
    """Let sbatch check every shape before anything is written: account, QOS, limits of the site."""
    if plan.cluster.kind == "local":
        return
    for spec in dict.fromkeys(run.spec for run in plan.runs):
        batch = Batch("test", ((),), spec, title="a question")
        job = replace(job_of(plan, batch, None), output=Path("/dev/null"))
        slurm.test_only(job.executor().text())


def _create(path: Path) -> None:
    if (
        path.exists()
        and not (path / "runs").is_dir()
        and (not path.is_dir() or any(path.iterdir()))
    ):
        raise RunDirError(f"run.dir={path} exists and is not a campaign: choose another directory.")
    try:
        for folder in ("runs", "plans", "jobs", "attempts"):
            (path / folder).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise RunDirError(
            f"run.dir={path} cannot be written ({err.strerror}): choose another directory."
        ) from err
    refuse_foreign(
        path, "runs the code and the jobs in it", files=("code/*/*", "jobs/*", "plans/*")
    )


def _record(plan: Plan, ledger: Ledger, submission: Submission) -> None:
    """Write plan and code, and note the submission."""
    write_text(plan.path / "plans" / plan.plan_name, plan.text())
    now, diff = current()
    store(plan.path, now, diff)
    if plan.cluster.snapshot:
        submission.code = snapshot(plan.path, now)
    reused = {key: str(path) for key, path in submission.finished.items()}
    ledger.append(
        "planned", plan=plan.plan_name, reused=reused, joined=sorted(submission.joined),
        words=[plan.verb, *plan.words], code=asdict(now),
    )  # fmt: skip
