"""Installs the wheel with pip on every Python that this machine has, and uses it there.

    .venv/bin/python .ci/pythons.py dist [3.10 3.12 ...]

`make release` runs it on what it built. On each of the Pythons that a release is for, if
`python3.12` and so on runs: a new environment, pip install of the wheel with its extras for a
search and the demo at the versions of constraints.txt, all modules loaded, and a model trained,
unlearned and reported by `dlfd`. A Python that is not there is named. The last line counts those
that did it; a Python asked for by its version must be there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LOAD = """
import importlib, pkgutil, sys
names = [
    module.name
    for package in ("dlfd_dist", "launch")
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")
    if not module.name.endswith("__main__")
]
for name in names:
    importlib.import_module(name)
print(f"{len(names)} modules")
"""
SMALL = (
    "model=small", "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=12",
    "data.synthetic.images_per_identity=4", "forget.fraction=0.3", "metrics.num_bootstrap=10",
)  # fmt: skip
USES = (
    ("dlfd", "--version"),
    ("dlfd", "train", *SMALL, "train.epochs=1", "train.on=all", "run.dir=original"),
    ("dlfd", "unlearn", *SMALL, "checkpoint=original", "method=dlfd", "run.dir=unlearned"),
    ("dlfd", "report", "unlearned"),
)


def used(wheel: Path, python: str, folder: Path) -> str:
    """Install a wheel into a new environment in `folder`, use it; return what was loaded.

    Raises
    ------
    subprocess.CalledProcessError with what a command printed, where one fails.
    """
    _run(python, "-m", "venv", folder / "env")
    bin_folder = folder / "env" / "bin"
    pins = ("-c", ROOT / "constraints.txt")
    install = (bin_folder / "python", "-m", "pip", "install", "--quiet", "--no-compile", *pins)
    _run(*install, "--upgrade", "pip")
    _run(*install, "torch", "torchvision", f"{wheel.resolve()}[search,demo]")
    loaded = _run(bin_folder / "python", "-c", LOAD, cwd=folder)
    for name, *words in USES:
        _run(bin_folder / name, *words, cwd=folder)
    return loaded.strip()


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    # Neither the checkout nor this environment may be what is loaded.
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=own, check=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return ended.stdout


def is_here(python: str) -> bool:
    """Return whether a Python runs; a shim of a version manager may stand for none."""
    path = shutil.which(python)
    return bool(path) and not subprocess.run([path, "--version"], capture_output=True).returncode


def main(dist: Path, asked: list[str]) -> int:
    """Try each Python; return the exit status."""
    wheels = sorted(dist.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{dist} holds {len(wheels)} wheels, not one: build one with 'make release'.")
        return 2
    (wheel,) = wheels
    passed, failed = 0, 0
    for version in asked or PYTHONS:
        python = f"python{version}"
        if not is_here(python):
            failed += bool(asked)
            print(f"Python {version}: not tried, for {python} does not run here", flush=True)
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dlfd-python-") as folder:
            try:
                loaded = used(wheel, python, Path(folder))
            except subprocess.CalledProcessError as err:
                failed += 1
                command = " ".join(str(word) for word in err.cmd)
                print(f"Python {version}: {command} ended with {err.returncode}:\n{err.stdout}")
                continue
        passed += 1
        seconds = time.monotonic() - start
        print(f"Python {version}: installed, {loaded}, unlearned ({seconds:.0f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else "dist"), sys.argv[2:]))
