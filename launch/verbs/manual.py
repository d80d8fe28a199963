"""What each verb does, takes and ends with, as 'dlfd VERB --help' and the reference say it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dlfd_dist.errors import (
    BAD_INPUT,
    CERTIFICATE_ALONE,
    FAILED,
    LOST,
    STOPPED,
    UNKNOWN_SIGNER,
)

WIDTH = 96
COMMON = {
    "--dry-run": "print the plan and the files that would be written, and write nothing",
    "--json": "print JSON on standard output",
}
GOES_ON = {
    STOPPED: "it stopped as asked, and the same command goes on",
    LOST: "a rank or a node was lost, and the same command goes on",
}
"""The statuses of verbs that run something."""
SETTINGS = "settings of the run; those of this verb are listed below"


@dataclass(frozen=True)
class Manual:
    """The help of one verb."""

    what: str
    usage: str
    arguments: Mapping[str, str]
    example: str
    statuses: Mapping[int, str] = field(default_factory=dict)
    """Besides 0 and 2, which every verb has."""


def manual_text(name: str, takes: tuple[str, ...]) -> str:
    """Return the help of a verb, without its settings.

    takes : which of `dry_run` and `as_json` the verb heeds
    """
    manual = MANUALS[name]
    common = {option: COMMON[option] for option in COMMON if _field(option) in takes}
    statuses = {0: "done", **manual.statuses, BAD_INPUT: "bad input, explained in one sentence"}
    flags = "".join(f" [{option}]" for option in common)
    return "\n".join(
        [
            f"usage: dlfd {name} {manual.usage}".rstrip() + flags,
            "",
            *textwrap.wrap(manual.what, WIDTH),
            "",
            *_listed({**manual.arguments, **common}),
            "",
            f"example: {manual.example}",
            "",
            "exit status:",
            *_listed({str(status): statuses[status] for status in sorted(statuses)}),
            "",
        ]
    )


def _field(option: str) -> str:
    return {"--dry-run": "dry_run", "--json": "as_json"}[option]


def _listed(entries: Mapping[str, str]) -> Iterator[str]:
    """Yield lines of a name and what it means, which begins in one column."""
    width = max(map(len, entries)) + 2
    for name, text in entries.items():
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=f"  {name:{width}}",
            subsequent_indent=" " * (width + 2), break_on_hyphens=False,
        )  # fmt: skip


LISTED = {"plugins=[MODULE,...]": "modules of yours that register more of them"}
MANUALS = {
    "demo": Manual(
        "Trains on real faces, forgets some people by two methods, compares them with Retrained "
        "and writes a page, in runs/demo. It is 'dlfd compare experiment=demo'.",
        "[key=value ...]", {"key=value": SETTINGS}, "dlfd demo",
        {FAILED: "a run failed", **GOES_ON},
    ),
    "train": Manual(
        "Trains a model: Original on all training images (train.on=all), or Retrained on those "
        "that are to be kept (train.on=retain). A finished run is not done again.",
        "[key=value ...]", {"key=value": SETTINGS},
        "dlfd train data=image_folder data.root=photographs run.dir=runs/original",
        {FAILED: "the run failed", **GOES_ON},
    ),
    "unlearn": Manual(
        "Makes a trained model forget the people of a request, and measures what it did.",
        "[key=value ...]", {"key=value": SETTINGS},
        "dlfd unlearn method=dlfd checkpoint=runs/original data=image_folder "
        "data.root=photographs forget.request=request.txt",
        {FAILED: "the run failed", **GOES_ON},
    ),
    "evaluate": Manual(
        "Measures a model as it is; reference=PATH adds the gap to Retrained.",
        "[key=value ...]", {"key=value": SETTINGS},
        "dlfd evaluate checkpoint=runs/unlearned reference=runs/retrained data=image_folder "
        "data.root=photographs forget.request=request.txt",
        {FAILED: "the run failed", **GOES_ON},
    ),
    "compare": Manual(
        "Runs methods over seeds against Original and Retrained, and writes table and page. Runs "
        "that are finished are reused.",
        "[key=value ...]", {"key=value": SETTINGS},
        "dlfd compare method=dlfd,finetune seed=0,1,2 data=synthetic forget.fraction=0.2 "
        "run.dir=runs/compared",
        {FAILED: "a run failed, and the table lacks it", **GOES_ON},
    ),
    "search": Manual(
        "Searches the settings of a method on validation people, runs the best again with other "
        "seeds, and writes best.yaml for 'dlfd unlearn +tuned=DIR/best.yaml'.",
        "[key=value ...]",
        {"key=value": SETTINGS, "--resume": "go on with the search in run.dir"},
        "dlfd search method=dlfd search=asha search.num_samples=20 data=synthetic "
        "forget.fraction=0.2 checkpoint=runs/original run.dir=runs/search",
        {FAILED: "the search failed or has no winner", **GOES_ON},
    ),
    "audit": Manual(
        "Judges what a model still tells of the forgotten, over many models (ulira, klom), or "
        "finds images that are there twice (leaks).",
        "ulira|klom|leaks [key=value ...]",
        {"ulira|klom|leaks": "the kind of audit", "key=value": SETTINGS},
        "dlfd audit ulira method=dlfd,finetune audit.models=16 data=synthetic "
        "forget.fraction=0.2 run.dir=runs/audit",
        {FAILED: "a run failed", **GOES_ON},
    ),
    "bench": Manual(
        "Times some steps of unlearning on your model and data, says where the time goes and what "
        "to change. Nothing is written unless run.dir=DIR is given.",
        "[steps=N] [key=value ...]",
        {"steps=N": "the number of steps that are timed; 5 unless given", "key=value": SETTINGS},
        "dlfd bench method=dlfd checkpoint=runs/original data=synthetic forget.fraction=0.2",
        {FAILED: "the run failed"},
    ),
    "report": Manual(
        "Writes the page of finished runs; the directory of a comparison stands for all its runs.",
        "RUN_DIR...",
        {
            "RUN_DIR": "the directory of a finished run or of a comparison",
            "--out FILE": "where the page goes, RUN_DIR/report.html unless given; a name that ends "
            "in .csv, .md, .tex or .txt gets the table alone",
        },
        "dlfd report runs/compared --out page.html",
    ),
    "export": Manual(
        "Writes the model of a finished run for other programs, in the names of the checkpoint "
        "that came in. Its answers are compared with the model's before it is kept.",
        "RUN_DIR --to state-dict|torch-export|onnx|huggingface [--out FILE] [checkpoint=PATH]",
        {
            "RUN_DIR": "the directory of a run of train or unlearn",
            "--to FORM": "state-dict, torch-export, onnx, or huggingface for what came from there",
            "--out FILE": "where the model goes; RUN_DIR/export/ unless given",
            "checkpoint=PATH": "where the checkpoint that came in lies now",
            "model.factory=, model.features=, plugins=": "code of yours that the run names, which "
            "is run only where you give it",
        },
        "dlfd export runs/unlearned --to onnx",
        {FAILED: "the file did not answer as the model, and was not kept"},
    ),
    "certify": Manual(
        "Writes certificate.json of a finished run: digests of its files, the request and the "
        "figures, with pseudonyms for people.",
        "RUN_DIR",
        {
            "RUN_DIR": "the directory of a finished run",
            "--key KEY.pem": "the private key to sign with; nobody signs without it",
            "--names": "write the people themselves and no pseudonyms",
        },
        "dlfd certify runs/unlearned --key officer.pem",
    ),
    "verify": Manual(
        "Checks a certificate against the files of its run, and its signature against a key.",
        "RUN_DIR|certificate.json",
        {
            "RUN_DIR": "the directory of a run with a certificate, or the certificate itself",
            "--public-key PEM": "the key of the signer whom you trust",
            "--recompute": "measure the model again and compare the figures",
            "--checkpoint PATH": "where the checkpoint that came in lies now",
            "--reference PATH": "where Retrained lies now",
        },
        "dlfd verify runs/unlearned --public-key officer.pub.pem",
        {
            FAILED: "a check failed",
            UNKNOWN_SIGNER: "every check holds, and no key that you trust vouches for it",
            CERTIFICATE_ALONE: "the certificate holds, and its files are not there to be checked",
        },
    ),
    "keygen": Manual(
        "Makes a pair of Ed25519 keys to sign certificates with. The public key lies beside the "
        "private key.",
        "KEY.pem", {"KEY.pem": "the file of the private key, which must not exist"},
        "dlfd keygen officer.pem",
    ),
    "submit": Manual(
        "Submits a verb and its grid as SLURM jobs that wait for each other. What is finished or "
        "queued is not submitted again.",
        "VERB [key=value ...] cluster=NAME",
        {
            "VERB": "train, unlearn, evaluate, audit, compare or search",
            "cluster=NAME": "a file of configs/cluster/; cluster.key=value changes it",
            "key=value": SETTINGS,
            "--test-only": "ask sbatch whether it would take the jobs, and queue none",
        },
        "dlfd submit compare method=dlfd,finetune seed=0,1,2 data=synthetic forget.fraction=0.2 "
        "cluster=slurm_generic run.dir=runs/campaign --dry-run",
    ),
    "status": Manual(
        "Shows what became of the runs of a campaign, by squeue, sacct and the run directories.",
        "[CAMPAIGN...] [--watch]",
        {
            "CAMPAIGN": "the directory of a campaign, or its name under runs/; all of runs/ "
            "unless given",
            "--watch": "show it again and again until no run is under way",
        },
        "dlfd status runs/campaign --watch",
        {FAILED: "a run failed, was cancelled or lost, or waits for such a run"},
    ),
    "logs": Manual(
        "Prints what a run said.",
        "RUN",
        {
            "RUN": "the directory of a run, or CAMPAIGN/LABEL",
            "-f": "follow the log until the run has ended",
            "--rank N": "the log of this rank",
        },
        "dlfd logs runs/campaign/seed=0 -f",
    ),
    "cancel": Manual(
        "Cancels the jobs of a campaign, or that of one run.",
        "CAMPAIGN|RUN",
        {"CAMPAIGN|RUN": "the directory of a campaign, or CAMPAIGN/LABEL for one run of it"},
        "dlfd cancel runs/campaign",
    ),
    "retry": Manual(
        "Submits the runs of a campaign that ended badly, and what waits for them, again. They go "
        "on from their last checkpoint.",
        "CAMPAIGN --failed",
        {
            "CAMPAIGN": "the directory of a campaign",
            "--failed": "which runs: those that failed, were cancelled or lost",
        },
        "dlfd retry runs/campaign --failed",
    ),
    "doctor": Manual(
        "Checks this installation and machine, or a cluster by SLURM's clients and one tiny job. "
        "Each line is one finding; below a FAIL stands what to do.",
        "[cluster=NAME | slurm] [key=value ...]",
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
        "dlfd doctor slurm partition=gpu gpus_per_node=1 shared=/scratch/me",
        {FAILED: "a check failed"},
    ),
    "inspect": Manual(
        "Says what a file of weights is, which models it fits, and the command that takes it. No "
        "code of the file is run.",
        "CHECKPOINT", {"CHECKPOINT": "a .pth, .pt, .ckpt or .safetensors file, or a run directory"},
        "dlfd inspect model.pth",
    ),
    "methods": Manual(
        "Lists what method= may be, with those of plugins. 'dlfd unlearn --help method=NAME' "
        "lists the settings of one.",
        "[plugins=[MODULE,...]]", LISTED, "dlfd methods",
    ),
    "models": Manual(
        "Lists what model= may be, with those of plugins, or the networks of a library.",
        "[timm|torchvision [PATTERN]] [plugins=[MODULE,...]]",
        {"timm|torchvision": "list the networks of this library, for model.name=",
         "PATTERN": "list only names like this, as 'resnet*'", **LISTED},
        "dlfd models timm 'vit_*'",
    ),
    "data": Manual(
        "Lists what data= may be, with those of plugins.",
        "[plugins=[MODULE,...]]", LISTED, "dlfd data",
    ),
    "metrics": Manual(
        "Lists what metrics.custom= may be, all of plugins.",
        "[plugins=[MODULE,...]]", LISTED, "dlfd metrics",
    ),
    "completion": Manual(
        "Prints the script that completes this command in a shell: verbs, options, settings, their "
        "choices and run directories.",
        "bash|zsh|fish", {"bash|zsh|fish": "the shell"}, 'eval "$(dlfd completion bash)"',
    ),
}  # fmt: skip
