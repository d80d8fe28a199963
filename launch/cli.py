"""The `dlfd` command. A verb's module is imported when the verb is given, so that `dlfd --help` and
every refusal are instant."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import Any, NoReturn

from dlfd_dist import __version__
from dlfd_dist.access import MODES, PRIVATE, set_mode
from dlfd_dist.errors import BAD_INPUT, INTERRUPTED, ConfigError, DlfdError
from dlfd_dist.plain import visible_output
from dlfd_dist.registry import near_match

from .children import child_environment
from .verbs.table import COMMON, LEAKS, VERBS, Verb, listed


def _verbs() -> str:
    """Return what each verb does, in one sentence, and its words where these are no settings."""
    lines: list[str] = []
    for name, verb in VERBS.items():
        sentence = verb.what.partition(". ")[0].rstrip(".")
        usage = f": {verb.full_usage(name)}" if verb.usage else ""
        lines += listed({f"{name:10}": sentence + usage})
    return "\n".join(lines)


HELP = f"""dlfd: a trained vision model forgets people, with the evidence

usage: dlfd VERB [key=value ...] [--dry-run] [--json]

{_verbs()}

  --dry-run   print the resolved configuration, the plan and the files; write nothing
  --json      print the result (or the dry run) as JSON on standard output
  --help      this text; 'dlfd VERB --help [key=value ...]' says what the verb takes and
              lists its settings with the values that would run
  --version

On a terminal, tables are laid out to its width and coloured, unless NO_COLOR is
set; in a pipe they are plain text.

exit status: 0 done, 1 failed, 2 bad input, 3 intact but vouched for by nobody
you trust (verify), 4 intact as far as its files are there (verify), 75 stopped
as asked, 76 a node was lost (the same command goes on)
"""
NO_DRY_RUN = ("status", "logs", "cancel", "retry", "verify")
"""Verbs that have nothing to show beforehand, and say so."""


def _rank(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--rank {text} is not allowed: it must be a number >= 0.")
    return int(text)


NEEDS = {
    "--out": ("a path", "PAGE.html"),
    "--to": ("a form", "onnx"),
    "--rank": ("a number", "0"),
    "--key": ("a path", "KEY.pem"),
    "--public-key": ("a path", "KEY.pub.pem"),
    "--checkpoint": ("a path", "RUN_DIR"),
    "--reference": ("a path", "RUN_DIR"),
}
"""The options that have a value: what it is, and an example of it. The others are flags."""
KINDS: dict[str, dict[str, Any]] = {
    "--json": {"dest": "as_json"}, "-f": {"dest": "follow"}, "--rank": {"type": _rank},
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """The options of one verb among its words, in any order."""

    def __init__(self, verb: Verb):
        super().__init__(add_help=False, allow_abbrev=False)
        for option in (*COMMON, *verb.options):
            flag: dict[str, Any] = {} if option in NEEDS else {"action": "store_true"}
            self.add_argument(option, **flag, **KINDS.get(option, {}))
        self.add_argument("words", nargs="*")

    def error(self, message: str) -> NoReturn:
        option = message.removeprefix("argument ").partition(":")[0]
        if option in NEEDS and "expected one argument" in message:
            needed, example = NEEDS[option]
            raise ConfigError(f"{option} needs {needed}: {option} {example}.")
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
    owners = [f"'dlfd {name}'" for name, verb in VERBS.items() if option in verb.options]
    if not owners:
        known = dict.fromkeys([*COMMON, *(own for verb in VERBS.values() for own in verb.options)])
        raise ConfigError(f"The option {option} is not known." + near_match(option, known))
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
    verb = VERBS[name]
    text = verb.manual(name)
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
