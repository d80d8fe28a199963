"""The `dlfd` command. torch, ray and matplotlib are imported only by the verb that needs them, so
that `dlfd --help` is instant."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from dlfd_dist import __version__
from dlfd_dist.access import MODES, PRIVATE, set_mode
from dlfd_dist.errors import ConfigError, DlfdError
from dlfd_dist.plain import visible_output
from dlfd_dist.registry import near_match

from .children import child_environment


@dataclass(frozen=True)
class Command:
    """A command line taken apart: the verb, its words, and its flags."""

    verb: str
    words: list[str]
    dry_run: bool = False
    json: bool = False
    out: str | None = None
    flags: frozenset[str] = frozenset()
    """The options of this verb alone that were given, such as --watch."""
    rank: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    """The options that were given with a value, such as --out PAGE.html."""


HELP = """dlfd: a trained vision model forgets people, with the evidence

usage: dlfd VERB [key=value ...] [--dry-run] [--json]

  demo        train on real faces, forget some people, compare with Retrained, show a page
  train       train Original (train.on=all) or Retrained (train.on=retain)
  unlearn     forget: method=dlfd checkpoint=PATH forget.request=FILE (methods: docs/methods.md)
  evaluate    measure a checkpoint; reference=PATH adds the gap to Retrained
  compare     methods x seeds against Original and Retrained: method=dlfd,scrub seed=0,1,2
  search      the settings of a method: search=asha|optuna|pbt|random search.num_samples=20
              [--resume]; the chosen ones: dlfd unlearn +tuned=DIR/best.yaml
  audit       what leaks, judged over many models: dlfd audit ulira|klom method=dlfd,finetune
              audit.models=16 run.dir=DIR
              images that are there twice: dlfd audit leaks data=... [forget...] run.dir=DIR
  bench       where the time of a run goes, and what to change: dlfd bench data=... checkpoint=PATH
              method=dlfd [steps=5]; nothing is written unless run.dir=DIR is given
  report      a page for finished runs: dlfd report RUN_DIR... [--out PAGE.html|TABLE.csv]
  certify     certificate.json of a finished run: dlfd certify RUN_DIR [--key KEY.pem] [--names]
  verify      check it: dlfd verify RUN_DIR|certificate.json [--public-key PEM] [--recompute]
              [--checkpoint PATH] [--reference PATH]
  keygen      a pair of Ed25519 keys to sign certificates with: dlfd keygen KEY.pem
  submit      any verb and grid as SLURM jobs: dlfd submit compare method=dlfd,scrub seed=0,1,2
              cluster=slurm_generic [cluster.key=value ...] [--test-only]
  status      what became of the runs: dlfd status [CAMPAIGN] [--watch]
  logs        what a run said: dlfd logs RUN [-f] [--rank N]
  cancel      dlfd cancel CAMPAIGN|RUN
  retry       dlfd retry CAMPAIGN --failed
  doctor      check this installation and machine; 'dlfd doctor cluster=NAME' checks a cluster
  inspect     what a file of weights is, and the command that takes it: dlfd inspect CHECKPOINT
  methods     what method= may be; likewise models and data, each with those of plugins

  --dry-run   print the resolved configuration, the plan and the files; write nothing
  --json      print the result (or the dry run) as JSON on standard output
  --help      this text; 'dlfd VERB --help [key=value ...]' lists the
              settings of the verb with the values that would run
  --version

exit status: 0 done, 1 failed, 2 bad input, 3 intact but vouched for by nobody
you trust (verify), 75 stopped as asked, 76 a node was lost (the same command
goes on)
"""


def parse(arguments: list[str]) -> Command:
    """Return the command that the arguments mean."""
    words, flags, values = [], set(), {}
    rest = iter(arguments)
    for argument in rest:
        if argument in VALUES:
            values[argument] = next(rest, None)
            if values[argument] is None:
                kind, example = VALUES[argument]
                raise ConfigError(f"{argument} needs {kind}: {argument} {example}.")
        elif argument.startswith("-"):
            flags.add(argument)
        else:
            words.append(argument)
    verb, words = (words[0], words[1:]) if words else ("", [])
    _check_options(verb, flags | set(values))
    own = frozenset(flags - set(COMMON))
    rank = _rank(values.get("--rank"))
    out = values.get("--out")
    return Command(verb, words, "--dry-run" in flags, "--json" in flags, out, own, rank, values)


COMMON = ("--dry-run", "--json")
OPTIONS = {
    "--out": "report", "--test-only": "submit", "--watch": "status", "-f": "logs",
    "--rank": "logs", "--failed": "retry", "--resume": "search",
    "--key": "certify", "--names": "certify", "--public-key": "verify", "--recompute": "verify",
    "--checkpoint": "verify", "--reference": "verify",
}  # fmt: skip
"""The options of one verb alone."""
VALUES = {
    "--out": ("a path", "PAGE.html"),
    "--rank": ("a number", "0"),
    "--key": ("a path", "KEY.pem"),
    "--public-key": ("a path", "KEY.pub.pem"),
    "--checkpoint": ("a path", "RUN_DIR"),
    "--reference": ("a path", "RUN_DIR"),
}
"""The options that take a value: what it is, and an example."""


def _check_options(verb: str, given: set[str]) -> None:
    for option in sorted(given - set(COMMON)):
        if option not in OPTIONS:
            known = [*COMMON, *OPTIONS]
            raise ConfigError(f"The option {option} is not known." + near_match(option, known))
        if verb in VERBS and verb != OPTIONS[option]:
            more = "; runs go to run.dir=DIR" if option == "--out" else ""
            raise ConfigError(f"{option} is an option of 'dlfd {OPTIONS[option]}' alone{more}.")
    if verb in ("status", "logs", "cancel", "retry", "verify") and "--dry-run" in given:
        raise ConfigError(f"--dry-run is not an option of 'dlfd {verb}'.")


def _rank(text: str | None) -> int | None:
    if text is not None and not text.isdecimal():
        raise ConfigError(f"--rank {text} is not allowed: it must be a number >= 0.")
    return None if text is None else int(text)


def _run_verb(command: Command) -> int:
    from .job import run_verb

    return run_verb(command.verb, command.words, dry_run=command.dry_run, as_json=command.json)


def _compare(command: Command) -> int:
    from .comparison.compare import run_compare

    return run_compare(command.words, dry_run=command.dry_run, as_json=command.json)


def _search(command: Command) -> int:
    from .search.search import run_search

    resume = "--resume" in command.flags
    return run_search(command.words, resume=resume, dry_run=command.dry_run, as_json=command.json)


def _audit(command: Command) -> int:
    if command.words[:1] == ["leaks"]:
        from .audit.leaks import run_leaks

        return run_leaks(command.words[1:], dry_run=command.dry_run, as_json=command.json)
    from .audit.audit import run_audit

    return run_audit(command.words, dry_run=command.dry_run, as_json=command.json)


def _demo(command: Command) -> int:
    from .demo import run_demo

    return run_demo(command.words, dry_run=command.dry_run, as_json=command.json)


def _bench(command: Command) -> int:
    from .bench import run_bench

    return run_bench(command.words, dry_run=command.dry_run, as_json=command.json)


def _report(command: Command) -> int:
    from .report import run_report

    return run_report(command.words, out=command.out, dry_run=command.dry_run, as_json=command.json)


def _certify(command: Command) -> int:
    from .certify import run_certify

    return run_certify(
        command.words, key=command.options.get("--key"), names="--names" in command.flags,
        dry_run=command.dry_run, as_json=command.json,
    )  # fmt: skip


def _verify(command: Command) -> int:
    from .certify import run_verify

    recompute = "--recompute" in command.flags
    return run_verify(command.words, command.options, recompute=recompute, as_json=command.json)


def _keygen(command: Command) -> int:
    from .certify import run_keygen

    return run_keygen(command.words, dry_run=command.dry_run, as_json=command.json)


def _doctor(command: Command) -> int:
    from .doctor.report import run_doctor

    return run_doctor(command.words, dry_run=command.dry_run, as_json=command.json)


def _submit(command: Command) -> int:
    from .campaign.submit import run_submit

    test_only = "--test-only" in command.flags
    return run_submit(
        command.words, dry_run=command.dry_run, test_only=test_only, as_json=command.json
    )


def _status(command: Command) -> int:
    from .campaign.status import run_status

    return run_status(command.words, watch="--watch" in command.flags, as_json=command.json)


def _logs(command: Command) -> int:
    from .campaign.logs import run_logs

    return run_logs(command.words, follow="-f" in command.flags, rank=command.rank)


def _cancel(command: Command) -> int:
    from .campaign.status import run_cancel

    return run_cancel(command.words)


def _inspect(command: Command) -> int:
    from .inspection import run_inspect

    return run_inspect(command.words, as_json=command.json)


def _listing(command: Command) -> int:
    from .listing import run_listing

    return run_listing(command.verb, command.words, as_json=command.json)


def _retry(command: Command) -> int:
    from .campaign.status import run_retry

    return run_retry(command.words, failed="--failed" in command.flags, as_json=command.json)


VERBS: dict[str, Callable[[Command], int]] = {
    "demo": _demo,
    "train": _run_verb,
    "unlearn": _run_verb,
    "evaluate": _run_verb,
    "compare": _compare,
    "search": _search,
    "audit": _audit,
    "bench": _bench,
    "report": _report,
    "certify": _certify,
    "verify": _verify,
    "keygen": _keygen,
    "submit": _submit,
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "retry": _retry,
    "doctor": _doctor,
    "inspect": _inspect,
    "methods": _listing,
    "models": _listing,
    "data": _listing,
}


HAVE_SETTINGS = (
    "demo", "train", "unlearn", "evaluate", "compare", "search", "audit", "bench", "submit",
)  # fmt: skip


def _verb_help(verb: str, words: list[str]) -> str:
    if verb not in HAVE_SETTINGS:
        return HELP
    from .settings import verb_help

    return verb_help(verb, words)


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"dlfd-dist {__version__}")
        return 0
    asks_help = any(a in ("-h", "--help") for a in arguments)
    command = parse([a for a in arguments if a not in ("-h", "--help")])
    if not command.verb:
        raise ConfigError(f"There is no verb: give one of {', '.join(VERBS)}.")
    if command.verb not in VERBS:
        raise ConfigError(
            f"'{command.verb}' is not a verb. Available: {', '.join(VERBS)}."
            + near_match(command.verb, VERBS)
        )
    if asks_help:
        print(_verb_help(command.verb, command.words), end="")
        return 0
    return VERBS[command.verb](command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; every problem a user can cause is one sentence and exit status 2."""
    # Threads that spin while they wait halve the speed of a rank whose core somebody else uses too
    # (65 against 140 images/s on two cores beside one busy process). Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Figures are files here; a notebook's shell names a backend that may not be installed.
    os.environ["MPLBACKEND"] = "agg"
    # Whatever a library starts for us (Ray, submitit, a loader of images) runs our modules too.
    os.environ.update(child_environment())
    for stream in (sys.stdout, sys.stderr):
        # A terminal or file that takes ASCII only gets a replacement for other characters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    words = sys.argv[1:] if arguments is None else arguments
    before = set_mode(_mode(words))
    with visible_output():
        return _guarded(words, before)


def _guarded(words: list[str], before: int) -> int:
    """Run a command; restore the umask that was there before."""
    try:
        return dispatch(words)
    except DlfdError as err:
        print(f"dlfd: {err}", file=sys.stderr)
        return err.exit_status
    except KeyboardInterrupt:
        print(
            "dlfd: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr
        )
        return 130
    except OSError as err:
        from dlfd_dist.__main__ import DISK_ERRORS, disk_message

        if err.errno not in DISK_ERRORS:
            raise
        print(f"dlfd: {disk_message(err)}", file=sys.stderr)
        return 2
    finally:
        os.umask(before)


def _mode(words: list[str]) -> str:
    """Return run.mode, for everything that a command makes; a wrong one is refused later."""
    given = [word.partition("=")[2] for word in words if word.startswith("run.mode=")]
    return given[-1] if given and given[-1] in MODES else PRIVATE


if __name__ == "__main__":
    sys.exit(main())
