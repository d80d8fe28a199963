"""The `dlfd` command. A verb's module is imported when the verb is given, so that `dlfd --help` and
every refusal are instant."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from dlfd_dist import __version__
from dlfd_dist.access import MODES, PRIVATE, set_mode
from dlfd_dist.errors import BAD_INPUT, INTERRUPTED, ConfigError, DlfdError
from dlfd_dist.plain import visible_output
from dlfd_dist.registry import near_match

from .children import child_environment

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
  report      a page for finished runs: dlfd report RUN_DIR... [--out PAGE.html|TABLE.csv|
              README.md]; README.md is the model card
  export      the model for other programs: dlfd export RUN_DIR [--out FILE] [checkpoint=PATH]
              --to state-dict|torch-export|onnx|huggingface, in the names that came in
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
  methods     what method= may be; likewise models, data and metrics, with those of plugins
  completion  what completes this command in a shell: dlfd completion bash|zsh|fish

  --dry-run   print the resolved configuration, the plan and the files; write nothing
  --json      print the result (or the dry run) as JSON on standard output
  --help      this text; 'dlfd VERB --help [key=value ...]' says what the verb takes and
              lists its settings with the values that would run
  --version

On a terminal, tables are laid out to its width and coloured, unless NO_COLOR is
set; in a pipe they are plain text.

exit status: 0 done, 1 failed, 2 bad input, 3 intact but vouched for by nobody
you trust (verify), 75 stopped as asked, 76 a node was lost (the same command
goes on)
"""


@dataclass(frozen=True)
class Verb:
    """The function of a verb, and the options that it takes."""

    function: str
    """MODULE.NAME below this package. The function takes the words, and the options by name."""
    options: tuple[str, ...] = ()
    """Its own options; --dry-run and --json go with every verb."""
    takes: tuple[str, ...] = ("dry_run", "as_json")
    """Which of these two its function heeds."""
    has_settings: bool = False
    """Whether its words are settings, which 'dlfd VERB --help' lists."""
    by_name: bool = False
    """Whether its function serves several verbs, and takes the name of the verb first."""

    def __call__(self, name: str, words: list[str], options: dict[str, Any]) -> int:
        module, _, function = self.function.rpartition(".")
        run = getattr(importlib.import_module(f".{module}", __package__), function)
        return run(*([name] if self.by_name else []), words, **options)


RUN = Verb("verbs.run.run_verb", has_settings=True, by_name=True)
LISTING = Verb("verbs.listing.run_listing", takes=("as_json",), by_name=True)
VERBS = {
    "demo": Verb("verbs.demo.run_demo", has_settings=True),
    "train": RUN,
    "unlearn": RUN,
    "evaluate": RUN,
    "compare": Verb("verbs.compare.run_compare", has_settings=True),
    "search": Verb("search.search.run_search", ("--resume",), has_settings=True),
    "audit": Verb("verbs.audit.run_audit", has_settings=True),
    "bench": Verb("verbs.bench.run_bench", has_settings=True),
    "report": Verb("results.report.run_report", ("--out",)),
    "export": Verb("verbs.export.run_export", ("--to", "--out")),
    "certify": Verb("verbs.certify.run_certify", ("--key", "--names")),
    "verify": Verb(
        "verbs.certify.run_verify", ("--public-key", "--recompute", "--checkpoint", "--reference"),
        takes=("as_json",),
    ),
    "keygen": Verb("verbs.certify.run_keygen"),
    "submit": Verb("verbs.submit.run_submit", ("--test-only",), has_settings=True),
    "status": Verb("verbs.status.run_status", ("--watch",), takes=("as_json",)),
    "logs": Verb("verbs.logs.run_logs", ("-f", "--rank"), takes=()),
    "cancel": Verb("verbs.status.run_cancel", takes=()),
    "retry": Verb("verbs.status.run_retry", ("--failed",), takes=("as_json",)),
    "doctor": Verb("doctor.report.run_doctor"),
    "inspect": Verb("verbs.inspection.run_inspect", takes=("as_json",)),
    "methods": LISTING,
    "models": LISTING,
    "data": LISTING,
    "metrics": LISTING,
    "completion": Verb("completion.run_completion", takes=()),
}  # fmt: skip
LEAKS = Verb("verbs.leaks.run_leaks", has_settings=True)
NO_DRY_RUN = ("status", "logs", "cancel", "retry", "verify")
"""Verbs that have nothing to show beforehand, and say so."""


def _rank(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--rank {text} is not allowed: it must be a number >= 0.")
    return int(text)


FLAG = {"action": "store_true"}
COMMON: dict[str, dict[str, Any]] = {"--dry-run": FLAG, "--json": {**FLAG, "dest": "as_json"}}
OPTIONS: dict[str, dict[str, Any]] = {
    "--out": {"help": "a path", "metavar": "PAGE.html"},
    "--to": {"help": "a form", "metavar": "onnx"},
    "--test-only": FLAG,
    "--watch": FLAG,
    "-f": {**FLAG, "dest": "follow"},
    "--rank": {"help": "a number", "metavar": "0", "type": _rank},
    "--failed": FLAG,
    "--resume": FLAG,
    "--key": {"help": "a path", "metavar": "KEY.pem"},
    "--names": FLAG,
    "--public-key": {"help": "a path", "metavar": "KEY.pub.pem"},
    "--recompute": FLAG,
    "--checkpoint": {"help": "a path", "metavar": "RUN_DIR"},
    "--reference": {"help": "a path", "metavar": "RUN_DIR"},
}
"""The options of single verbs: what their value is, and an example of it."""


class _Parser(argparse.ArgumentParser):
    """The options of one verb among its words, in any order."""

    def __init__(self, verb: Verb):
        super().__init__(add_help=False, allow_abbrev=False)
        for option in (*COMMON, *verb.options):
            self.add_argument(option, **{**COMMON, **OPTIONS}[option])
        self.add_argument("words", nargs="*")

    def error(self, message: str) -> NoReturn:
        option = message.removeprefix("argument ").partition(":")[0]
        if option in OPTIONS and "expected one argument" in message:
            needs = OPTIONS[option]
            raise ConfigError(f"{option} needs {needs['help']}: {option} {needs['metavar']}.")
        raise ConfigError(f"The command line is not understood: {message}.")


def parse(name: str, arguments: list[str]) -> tuple[Verb, list[str], dict[str, Any]]:
    """Return what a verb's command line means: the verb, its words, and its options by name."""
    verb = VERBS[name]
    values, unknown = _Parser(verb).parse_known_intermixed_args(arguments)
    for option in sorted(word.partition("=")[0] for word in unknown):
        _refuse(option)
    options = vars(values)
    words = options.pop("words")
    if options["dry_run"] and name in NO_DRY_RUN:
        raise ConfigError(f"--dry-run is not an option of 'dlfd {name}'.")
    for common in {"dry_run", "as_json"} - set(verb.takes):
        del options[common]
    if (name, *words[:1]) == ("audit", "leaks"):
        return LEAKS, words[1:], options
    return verb, words, options


def _refuse(option: str) -> NoReturn:
    """Say which verb has this option, or which option may be meant."""
    if option not in OPTIONS:
        known = [*COMMON, *OPTIONS]
        raise ConfigError(f"The option {option} is not known." + near_match(option, known))
    owners = [f"'dlfd {name}'" for name, verb in VERBS.items() if option in verb.options]
    more = "; runs go to run.dir=DIR" if option == "--out" else ""
    raise ConfigError(f"{option} is an option of {' and '.join(owners)} alone{more}.")


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        print(f"dlfd-dist {__version__}")
        return 0
    rest = [word for word in arguments if word not in ("-h", "--help")]
    name = next((word for word in rest if not word.startswith("-")), None)
    if name is None:
        for option in rest:
            if option not in COMMON:
                _refuse(option)
        raise ConfigError(f"There is no verb: give one of {', '.join(VERBS)}.")
    if name not in VERBS:
        raise ConfigError(
            f"'{name}' is not a verb. Available: {', '.join(VERBS)}." + near_match(name, VERBS)
        )
    position = rest.index(name)
    verb, words, options = parse(name, rest[:position] + rest[position + 1 :])
    if len(rest) < len(arguments):
        print(_help_of(name, words), end="")
        return 0
    return verb(name, words, options)


def _help_of(name: str, words: list[str]) -> str:
    from .verbs.manual import manual_text

    verb = VERBS[name]
    text = manual_text(name, verb.takes)
    if not verb.has_settings:
        return text
    from .verbs.settings import verb_help

    return f"{text}\n{verb_help(name, words)}"


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
        return INTERRUPTED
    except OSError as err:
        from dlfd_dist.__main__ import DISK_ERRORS, disk_message

        if err.errno not in DISK_ERRORS:
            raise
        print(f"dlfd: {disk_message(err)}", file=sys.stderr)
        return BAD_INPUT
    finally:
        os.umask(before)


def _mode(words: list[str]) -> str:
    """Return run.mode, for everything that a command makes; a wrong mode is refused later."""
    given = [word.partition("=")[2] for word in words if word.startswith("run.mode=")]
    return given[-1] if given and given[-1] in MODES else PRIVATE


if __name__ == "__main__":
    sys.exit(main())
