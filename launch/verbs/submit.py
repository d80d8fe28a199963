"""dlfd submit: the campaign's jobs are written, queued and chained; nothing is done twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dlfd_dist.access import for_others_to_read_only, refuse_foreign
from dlfd_dist.errors import ConfigError, RunDirError
from dlfd_dist.resources import checkout
from dlfd_dist.run_dir import write_text

from ..children import mind_working_directory
from ..execute import slurm
from ..execute.batches import Batch
from ..execute.code import current, snapshot, store
from ..execute.journal import Ledger, Placement
from ..execute.queues import SlurmQueue, settle, start_locally
from ..execute.states import directories_of, live
from ..execute.submission import Submission, job_of
from ..plan.campaign import plan_campaign
from ..plan.runs import Campaign
from .shown import show_answers, show_plan, show_submission
from .task import CampaignTask

VERBS = ("train", "unlearn", "evaluate", "audit", "compare", "search")


def run_submit(words: Sequence[str], *, dry_run: bool, test_only: bool, as_json: bool) -> int:
    """Submit a campaign, or show what would be submitted."""
    mind_working_directory()
    verb, *overrides = words or [""]
    campaign = campaign_of(verb, overrides)
    for variant in campaign.left_out:
        print(f"left out: {variant}", file=sys.stderr)
    _warn_of_local_disk(campaign)
    if dry_run:
        show_plan(_look(campaign), as_json=as_json)
        return 0
    if campaign.cluster.kind == "slurm":
        slurm.check_cluster(campaign.cluster, max(run.spec.nodes for run in campaign.runs))
    if test_only:
        submission = _look(campaign)
        answers = {
            batch.name: slurm.test_only(submission.job(batch).executor().text())
            for batch in [*submission.batches, submission.report]
        }
        show_answers(submission, answers, as_json=as_json)
        return 0
    submission = submit(campaign)
    show_submission(submission, as_json=as_json)
    return 0


def campaign_of(verb: str, words: Sequence[str]) -> Campaign:
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


def _warn_of_local_disk(campaign: Campaign) -> None:
    if campaign.cluster.kind == "local":
        return
    for local in campaign.cluster.local_paths:
        if campaign.path.is_relative_to(local):
            print(
                f"warning: run.dir={campaign.path} lies under {local}, which other nodes often do "
                "not see: a campaign needs a file system that all nodes share.",
                file=sys.stderr,
            )
            return


def _look(campaign: Campaign) -> Submission:
    """Return what would be submitted; nothing is written, and without SLURM nothing is asked."""
    ledger = Ledger(campaign.path)
    joined = live(ledger) if ledger.file.is_file() and slurm.has("squeue") else {}
    return _submission(campaign, ledger, joined)


def _submission(campaign: Campaign, ledger: Ledger, joined: Mapping[str, Placement]) -> Submission:
    wanted = {run.key for run in campaign.runs}
    ids = [place.job_id.split("_")[0] for place in joined.values()]
    busy = list(dict.fromkeys(job_id for job_id in ids if not job_id.startswith("local:")))
    joined = {key: place for key, place in joined.items() if key in wanted}
    number = 1 + sum(event["event"] == "planned" for event in ledger.events())
    code_dir = checkout() if not campaign.cluster.prefix else None
    # Runs that wait for trials have directories that no plan knows.
    begun = directories_of(campaign.path, ledger, campaign.runs)
    finished = replace(campaign, directories=begun | campaign.directories).finished()
    return Submission(campaign, number, finished, joined, busy, code_dir)


def submit(campaign: Campaign) -> Submission:
    """Queue what is neither finished nor queued; the ledger is held meanwhile."""
    _ask_first(campaign)
    # Whoever writes plan, code or jobs of a campaign decides what runs as this user.
    with for_others_to_read_only():
        _create(campaign.path)
        ledger = Ledger(campaign.path)
        with ledger.locked():
            return _queue(campaign, ledger)


def _queue(campaign: Campaign, ledger: Ledger) -> Submission:
    settle(ledger, CampaignTask)
    submission = _submission(campaign, ledger, live(ledger))
    _record(campaign, ledger, submission)
    if campaign.cluster.kind == "local":
        start_locally(submission, ledger, CampaignTask)
    else:
        submission.hand_to(SlurmQueue(submission, ledger, CampaignTask))
    return submission


def _ask_first(campaign: Campaign) -> None:
    """Let sbatch judge every shape before anything is written: account, QOS, limits of the site."""
    if campaign.cluster.kind == "local":
        return
    for spec in dict.fromkeys(run.spec for run in campaign.runs):
        batch = Batch("test", ((),), spec, title="a question")
        job = replace(job_of(campaign, batch, None), output=Path("/dev/null"))
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


def _record(campaign: Campaign, ledger: Ledger, submission: Submission) -> None:
    """Write plan and code, and note the submission."""
    write_text(campaign.path / "plans" / campaign.plan_name, campaign.text())
    now, diff = current()
    store(campaign.path, now, diff)
    if campaign.cluster.snapshot:
        submission.code = snapshot(campaign.path, now)
    reused = {key: str(path) for key, path in submission.finished.items()}
    ledger.append(
        "planned", plan=campaign.plan_name, reused=reused, joined=sorted(submission.joined),
        words=[campaign.verb, *campaign.words], code=asdict(now),
    )  # fmt: skip
