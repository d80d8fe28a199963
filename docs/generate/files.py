"""The page of the files of a run, from the paths that dlfd_dist.run_dir.RunDir knows."""

from __future__ import annotations

from pathlib import Path

from dlfd_dist.run_dir import RunDir


def files_page() -> str:
    """Return a table of every path of a run directory with what its docstring says."""
    rows = ["| file | what it holds |", "| --- | --- |"]
    for name, member in vars(RunDir).items():
        if isinstance(member, property) and not name.startswith("_"):
            path = getattr(RunDir(Path("RUN_DIR")), name)
            rows.append(f"| `{path.relative_to('RUN_DIR')}` | {_what(member)} |")
    return (
        "# Files of a run\n\n"
        "A run writes one directory. [Architecture](../architecture.md#a-run-directory) says when "
        "each file is written.\n\n" + "\n".join(rows) + "\n\n"
        "`dlfd certify` adds a certificate, which has [a form](../certificate.schema.json) and "
        "[a meaning](../certificate.md).\n"
    )


def _what(member: property) -> str:
    text = " ".join((member.__doc__ or "").split())
    return text.partition(": ")[2] or text
