"""The page of the command line, from what `dlfd --help` and `dlfd VERB --help` print."""

from __future__ import annotations

import contextlib
import io

from launch.cli import VERBS, dispatch


def help_of(*words: str) -> str:
    """Return what `dlfd WORDS --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        dispatch([*words, "--help"])
    return printed.getvalue()


def command_line_page() -> str:
    """Return the general help, and that of each verb."""
    parts = ["# Command line", _block(help_of())]
    for verb in VERBS:
        parts += [f"## dlfd {verb}", _block(help_of(verb))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
