"""Where the files outside the packages are: in the wheel, or beside the packages in a checkout."""

from pathlib import Path


def resource_dir(name: str) -> Path:
    """Return the folder `configs` or `slurm`, wherever this installation keeps it."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "_resources" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"This installation of dlfd-dist lacks its '{name}' folder.")
