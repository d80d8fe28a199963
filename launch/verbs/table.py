"""The verbs of `dlfd`: the function of each, what it does, takes and ends with.

The parser, the help, the completion and the reference are made from this table.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlfd_dist.errors import (
    BAD_INPUT,
    FAILED,
    LOST,
    NOT_ALL_CHECKED,
    STOPPED,
    UNKNOWN_SIGNER,
)

WIDTH = 96
COMMON = {
    "--dry-run": "print the plan and the files that would be written, and write nothing",
    "--json": "print JSON on standard output",
}
FIELDS = {"--dry-run": "dry_run", "--json": "as_json"}
"""The parameters of the functions that have these options."""
GOES_ON = {
    STOPPED: "it stopped as asked, and the same command goes on",
    LOST: "a rank or a node was lost, and the same command goes on",
}
"""The statuses of verbs that run something."""
SETTINGS = {"key=value": "settings of the run; those of this verb are listed below"}


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    function: str
    """MODULE.NAME below this package. The function takes the words, and the options by name."""
    what: str
    """What it does; the first sentence stands in the general help."""
    usage: str
    """Its words, and its options where there is room, without settings and common options."""
    example: str
    words: Mapping[str, str] = field(default_factory=dict)
    """The words that it takes besides settings, and what each means."""
    own_options: Mapping[str, str] = field(default_factory=dict)
    """Its own options, with the name of the value where there is one, and what each means."""
    statuses: Mapping[int, str] = field(default_factory=dict)
    """Exit statuses besides 0 and 2, which every verb has."""
    takes: tuple[str, ...] = ("dry_run", "as_json")
    """Which of the common options, which every verb accepts, its function heeds."""
    has_settings: bool = False
    """Whether its words are settings, which 'dlfd VERB --help' lists."""
    by_name: bool = False
    """Whether its function serves several verbs, and takes the name of the verb first."""

    def __call__(self, name: str, words: list[str], options: dict[str, Any]) -> int:
        module, _, function = self.function.rpartition(".")
        run = getattr(importlib.import_module(f"..{module}", __package__), function)
        return run(*([name] if self.by_name else []), words, **options)

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its own options."""
        return tuple(option.partition(" ")[0] for option in self.own_options)

    @property
    def common(self) -> dict[str, str]:
        """The common options that its function heeds, and what each means."""
        return {option: text for option, text in COMMON.items() if FIELDS[option] in self.takes}

    def full_usage(self, name: str) -> str:
        """Return the usage with the settings: dlfd NAME ..."""
        return f"dlfd {name} {self.usage}".rstrip() + " [key=value ...]" * self.has_settings

    def manual(self, name: str) -> str:
        """Return the help of the verb, without the list of its settings."""
        settings = SETTINGS if self.has_settings else {}
        statuses = {0: "done", **self.statuses, BAD_INPUT: "bad input, explained in one sentence"}
        flags = "".join(f" [{option}]" for option in self.common)
        return "\n".join([
            f"usage: {self.full_usage(name)}{flags}",
            "",
            *textwrap.wrap(self.what, WIDTH),
            "",
            *listed({**self.words, **settings, **self.own_options, **self.common}),
            "",
            f"example: {self.example}",
            "",
            "exit status:",
            *listed({str(status): statuses[status] for status in sorted(statuses)}),
            "",
        ])  # fmt: skip


def listed(entries: Mapping[str, str]) -> Iterator[str]:
    """Yield lines of a name and what it means, which begins in one column."""
    width = max(map(len, entries)) + 2
    for name, text in entries.items():
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=f"  {name:{width}}",
            subsequent_indent=" " * (width + 2), break_on_hyphens=False,
        )  # fmt: skip


def _one_run(what: str, example: str) -> Verb:
    return Verb(
        "verbs.run.run_verb", what, "", example, statuses={FAILED: "the run failed", **GOES_ON},
        has_settings=True, by_name=True,
    )  # fmt: skip


def _listing(what: str, example: str, usage: str = "", **words: str) -> Verb:
    words["plugins=[MODULE,...]"] = "modules of yours that register more of them"
    return Verb(
        "verbs.listing.run_listing", what, f"{usage} [plugins=[MODULE,...]]".strip(), example,
        words, takes=("as_json",), by_name=True,
    )  # fmt: skip


VERBS = {
    "demo": Verb(
        "verbs.compare.run_demo",
        "Trains on real faces, forgets some people by two methods, compares them with Retrained "
        "and writes a page, in runs/demo. It is 'dlfd compare experiment=demo'.",
        "", "dlfd demo", statuses={FAILED: "a run failed", **GOES_ON}, has_settings=True,
    ),
    "train": _one_run(
        "Trains a model: Original on all training images (train.on=all), or Retrained on those "
        "that are to be kept (train.on=retain). A finished run is not done again.",
        "dlfd train data=image_folder data.root=photographs run.dir=runs/original",
    ),
    "unlearn": _one_run(
        "Makes a trained model forget the people of a request, and measures what it did.",
        "dlfd unlearn method=dlfd checkpoint=runs/original data=image_folder "
        "data.root=photographs forget.request=request.txt",
    ),
    "evaluate": _one_run(
        "Measures a model as it is; reference=PATH adds the gap to Retrained.",
        "dlfd evaluate checkpoint=runs/unlearned reference=runs/retrained data=image_folder "
        "data.root=photographs forget.request=request.txt",
    ),
    "compare": Verb(
        "verbs.compare.run_compare",
        "Runs methods over seeds against Original and Retrained, and writes table and page. Runs "
        "that are finished are reused.",
        "",
        "dlfd compare method=dlfd,finetune seed=0,1,2 data=synthetic forget.fraction=0.2 "
        "run.dir=runs/compared",
        statuses={FAILED: "a run failed, and the table lacks it", **GOES_ON}, has_settings=True,
    ),
    "search": Verb(
        "search.search.run_search",
        "Searches the settings of a method on validation people, runs the best again with other "
        "seeds, and writes best.yaml for 'dlfd unlearn +tuned=DIR/best.yaml'.",
        "",
        "dlfd search method=dlfd search=asha search.num_samples=20 data=synthetic "
        "forget.fraction=0.2 checkpoint=runs/original run.dir=runs/search",
        own_options={"--resume": "go on with the search in run.dir"},
        statuses={FAILED: "the search failed or has no winner", **GOES_ON}, has_settings=True,
    ),
    "audit": Verb(
        "verbs.audit.run_audit",
        "Judges what a model still tells of the forgotten, over many models (ulira, klom), or "
        "finds images that are there twice (leaks).",
        "ulira|klom|leaks",
        "dlfd audit ulira method=dlfd,finetune audit.models=16 data=synthetic "
        "forget.fraction=0.2 run.dir=runs/audit",
        {"ulira|klom|leaks": "the kind of audit"},
        statuses={FAILED: "a run failed", **GOES_ON}, has_settings=True,
    ),
    "bench": Verb(
        "verbs.bench.run_bench",
        "Times some steps of unlearning on your model and data, says where the time goes and what "
        "to change. Nothing is written unless run.dir=DIR is given.",
        "[steps=N]",
        "dlfd bench method=dlfd checkpoint=runs/original data=synthetic forget.fraction=0.2",
        {"steps=N": "the number of steps that are timed; 5 unless given"},
        statuses={FAILED: "the run failed"}, has_settings=True,
    ),
    "report": Verb(
        "results.report.run_report",
        "Writes the page of finished runs; the directory of a comparison stands for all its runs.",
        "RUN_DIR... [--out PAGE.html|TABLE.csv|README.md]",
        "dlfd report runs/compared --out page.html",
        {"RUN_DIR": "the directory of a finished run or of a comparison"},
        {"--out FILE": "where the page goes, RUN_DIR/report.html unless given; a name that ends "
         "in .csv, .md, .tex or .txt gets the table alone, and README.md the model card"},
    ),
    "export": Verb(
        "verbs.export.run_export",
        "Writes the model of a finished run for other programs, in the names of the checkpoint "
        "that came in. Its answers are compared with the model's before it is kept.",
        "RUN_DIR --to state-dict|torch-export|onnx|huggingface [--out FILE] [checkpoint=PATH]",
        "dlfd export runs/unlearned --to onnx",
        {
            "RUN_DIR": "the directory of a run of train or unlearn",
            "checkpoint=PATH": "where the checkpoint that came in lies now",
            "model.factory=, model.features=, plugins=": "code of yours that the run names, which "
            "is run only where you give it",
        },
        {
            "--to FORM": "state-dict, torch-export, onnx, or huggingface for what came from there",
            "--out FILE": "where the model goes; RUN_DIR/export/ unless given",
        },
        {FAILED: "the file did not answer as the model, and was not kept"},
    ),
    "certify": Verb(
        "verbs.certify.run_certify",
        "Writes certificate.json of a finished run: digests of its files, the request and the "
        "figures, with pseudonyms for people.",
        "RUN_DIR [--key KEY.pem] [--names]",
        "dlfd certify runs/unlearned --key officer.pem",
        {"RUN_DIR": "the directory of a finished run"},
        {
            "--key KEY.pem": "the private key to sign with; nobody signs without it",
            "--names": "write the people themselves and no pseudonyms",
        },
    ),
    "verify": Verb(
        "verbs.certify.run_verify",
        "Checks a certificate against the files of its run, and its signature against a key.",
        "RUN_DIR|certificate.json [--public-key PEM] [--recompute]",
        "dlfd verify runs/unlearned --public-key officer.pub.pem",
        {"RUN_DIR": "the directory of a run with a certificate, or the certificate itself"},
        {
            "--public-key PEM": "the key of the signer whom you trust",
            "--recompute": "measure the model again and compare the figures",
            "--checkpoint PATH": "where the checkpoint that came in lies now",
            "--reference PATH": "where Retrained lies now",
        },
        {
            FAILED: "a check failed",
            UNKNOWN_SIGNER: "every check holds, and no key that you trust vouches for it",
            NOT_ALL_CHECKED: "what could be checked holds, and files are not there to be checked",
        },
        takes=("as_json",),
    ),
    "keygen": Verb(
        "verbs.certify.run_keygen",
        "Makes a pair of Ed25519 keys to sign certificates with. The public key lies beside the "
        "private key.",
        "KEY.pem", "dlfd keygen officer.pem",
        {"KEY.pem": "the file of the private key, which must not exist"},
    ),
    "submit": Verb(
        "verbs.submit.run_submit",
        "Submits a verb and its grid as SLURM jobs that wait for each other. What is finished or "
        "queued is not submitted again.",
        "VERB cluster=NAME [--test-only]",
        "dlfd submit compare method=dlfd,finetune seed=0,1,2 data=synthetic forget.fraction=0.2 "
        "cluster=slurm_generic run.dir=runs/campaign --dry-run",
        {
            "VERB": "train, unlearn, evaluate, audit, compare or search",
            "cluster=NAME": "a file of configs/cluster/; cluster.key=value changes it",
        },
        {"--test-only": "ask sbatch whether it would take the jobs, and queue none"},
        has_settings=True,
    ),
    "status": Verb(
        "verbs.status.run_status",
        "Shows what became of the runs of a campaign, by squeue, sacct and the run directories.",
        "[CAMPAIGN...] [--watch]", "dlfd status runs/campaign --watch",
        {"CAMPAIGN": "the directory of a campaign, or its name under runs/; all of runs/ unless "
         "given"},
        {"--watch": "show it again and again until no run is under way"},
        {FAILED: "a run failed, was cancelled or lost, or waits for such a run"},
        takes=("as_json",),
    ),
    "logs": Verb(
        "verbs.logs.run_logs",
        "Prints what a run said.",
        "RUN [-f] [--rank N]", "dlfd logs runs/campaign/seed=0 -f",
        {"RUN": "the directory of a run, or CAMPAIGN/LABEL"},
        {"-f": "follow the log until the run has ended", "--rank N": "the log of this rank"},
        takes=(),
    ),
    "cancel": Verb(
        "verbs.status.run_cancel",
        "Cancels the jobs of a campaign, or that of one run.",
        "CAMPAIGN|RUN", "dlfd cancel runs/campaign",
        {"CAMPAIGN|RUN": "the directory of a campaign, or CAMPAIGN/LABEL for one run of it"},
        takes=(),
    ),
    "retry": Verb(
        "verbs.status.run_retry",
        "Submits the runs of a campaign that ended badly, and what waits for them, again. They go "
        "on from their last checkpoint.",
        "CAMPAIGN --failed", "dlfd retry runs/campaign --failed",
        {"CAMPAIGN": "the directory of a campaign"},
        {"--failed": "which runs: those that failed, were cancelled or lost"},
        takes=("as_json",),
    ),
    "doctor": Verb(
        "doctor.report.run_doctor",
        "Checks this installation and machine, or a cluster by SLURM's clients and one tiny job. "
        "Each line is one finding; below a FAIL stands what to do.",
        "[cluster=NAME | slurm] [key=value ...]",
        "dlfd doctor slurm partition=gpu gpus_per_node=1 shared=/scratch/me",
        {
            "cluster=NAME": "check the cluster of a file of configs/cluster/",
            "slurm": "check the cluster that the clients of this machine reach",
            "partition=, account=, qos=": "where the probe job is queued",
            "nodes=2": "the nodes that the probe job joins",
            "gpus_per_node=0": "the GPUs that it asks for on each node",
            "shared=DIR": "the folder on a shared file system that is probed; . unless given",
            "python=PATH": "the interpreter on the nodes",
            "wait_s=300": "how many seconds the probe job may wait and run",
        },
        statuses={FAILED: "a check failed"},
    ),
    "inspect": Verb(
        "verbs.inspection.run_inspect",
        "Says what a file of weights is, which models it fits, and the command that takes it. No "
        "code of the file is run.",
        "CHECKPOINT", "dlfd inspect model.pth",
        {"CHECKPOINT": "a .pth, .pt, .ckpt or .safetensors file, or a run directory"},
        takes=("as_json",),
    ),
    "methods": _listing(
        "Lists what method= may be, with those of plugins. 'dlfd unlearn --help method=NAME' "
        "lists the settings of one.",
        "dlfd methods",
    ),
    "models": _listing(
        "Lists what model= may be, with those of plugins, or the networks of a library.",
        "dlfd models timm 'vit_*'", "[timm|torchvision [PATTERN]]",
        **{"timm|torchvision": "list the networks of this library, for model.name="},
        PATTERN="list only names like this, as 'resnet*'",
    ),
    "data": _listing("Lists what data= may be, with those of plugins.", "dlfd data"),
    "metrics": _listing("Lists what metrics.custom= may be, all of plugins.", "dlfd metrics"),
    "completion": Verb(
        "completion.run_completion",
        "Prints the script that completes this command in a shell: verbs, options, settings, their "
        "choices and run directories.",
        "bash|zsh|fish", 'eval "$(dlfd completion bash)"', {"bash|zsh|fish": "the shell"}, takes=(),
    ),
}  # fmt: skip
LEAKS = replace(VERBS["audit"], function="verbs.leaks.run_leaks")
