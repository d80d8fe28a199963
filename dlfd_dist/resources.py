"""Where the packages are, and the files outside of them: in the wheel, or beside the packages."""

from __future__ import annotations

from pathlib import Path


def root() -> Path:
    """Return the folder that holds the packages."""
    return Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """Return the folder of the checkout or snapshot this process runs; None: it is installed."""
    return root() if (root() / "configs").is_dir() else None


def resource_dir(name: str) -> Path:
    """Return the folder `configs` or `slurm`, wherever this installation keeps it."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "_resources" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"This installation of dlfd-dist lacks its '{name}' folder.")
