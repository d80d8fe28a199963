"""The page of the command line, from what `dlfd --help` prints."""

from __future__ import annotations

import contextlib
import io
import re

from launch.cli import dispatch

VERB = re.compile(r"^  ([a-z]+) {2,}", re.MULTILINE)


def help_of(*words: str) -> str:
    """Return what `dlfd WORDS --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        dispatch([*words, "--help"])
    return printed.getvalue()


def command_line_page() -> str:
    """Return the general help, and the help of each verb that has its own."""
    general = help_of()
    parts = ["# Command line", _block(general)]
    for verb in VERB.findall(general):
        own = help_of(verb)
        if own != general:
            parts += [f"## dlfd {verb}", _block(own)]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
