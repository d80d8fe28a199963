"""The code blocks of a page of Markdown, and the words of each `dlfd` in a block of shell."""

from __future__ import annotations

import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?:^ *<!-- needs (?P<needs>[^>]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
RECORDER = """
dlfd() { printf '%s\\0' "$@" >>"$RECORD"; printf '\\0' >>"$RECORD"; }
sbatch() { test -n "$*"; }
make() { command make --dry-run --no-print-directory -C "$CHECKOUT" "$@" >/dev/null; }
"""
"""`dlfd` notes its words in a file; `make` looks whether it knows what to make."""


@dataclass(frozen=True)
class Block:
    """A code block, and what its mark says that it needs beyond this machine."""

    place: str
    language: str
    text: str
    needs: str | None


def blocks_of(path: Path, root: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    page = path.read_text(encoding="utf-8")
    return [
        Block(
            f"{path.relative_to(root)}:{page.count(chr(10), 0, match.start()) + 1}",
            match["language"], textwrap.dedent(match["text"]), match["needs"],
        )
        for match in FENCE.finditer(page)
    ]  # fmt: skip


def dlfd_words(block: Block, record: Path, root: Path) -> list[list[str]]:
    """Return the words of every `dlfd` that bash runs in a block; any other failure is an error."""
    record.unlink(missing_ok=True)
    record.touch()
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", RECORDER + block.text],
        env={
            "PATH": "/usr/bin:/bin", "SCRATCH": "/shared", "RECORD": str(record),
            "CHECKOUT": str(root),
        },
        cwd=record.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, f"{block.place}: {ended.stderr}"
    calls = record.read_text(encoding="utf-8").split("\0\0")
    return [call.split("\0") for call in calls if call]
