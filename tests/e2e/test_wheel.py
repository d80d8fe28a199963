"""What a wheel carries, that images install as they say, and that `dlfd` runs from anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlfd_dist import __version__

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "-q", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_it_carries_code_values_and_scripts(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "dlfd_dist/__main__.py",
        "dlfd_dist/data/orl_glasses.csv",
        "dlfd_dist/report/report.html.j2",
        "dlfd_dist/_resources/configs/config.yaml",
        "dlfd_dist/_resources/configs/method/dlfd.yaml",
        "dlfd_dist/_resources/slurm/templates/srun.sbatch",
        "dlfd_dist/_resources/slurm/templates/torchrun.sbatch",
        "dlfd_dist/_resources/slurm/lib/rendezvous.sh",
        "dlfd_dist/_resources/slurm/lib/requeue.sh",
        "dlfd_dist/_resources/configs/cluster/slurm_generic.yaml",
        "launch/cli.py",
    ):
        assert name in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "runs/"))]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment that containers/dlfd-dist.def filled, step by step, from a copy of the tree.

    It borrows the packages of this environment, so that nothing is fetched, but not this checkout.
    """
    folder = tmp_path_factory.mktemp("image")
    tree = folder / "opt"
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    # An editable install is a .pth file, and those of a borrowed folder are not read.
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    image = Installed(folder / "env", tree, folder)
    image.sh(section("post").replace("/opt/dlfd-dist", str(tree)))
    return image


@dataclass(frozen=True)
class Installed:
    """An environment with dlfd-dist in it, and the tree that it was installed from."""

    env: Path
    tree: Path
    folder: Path

    def sh(self, script: str, cwd: Path | None = None) -> str:
        """Run a script of sh as an image would; return what it prints."""
        unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        environment = {k: v for k, v in os.environ.items() if k not in unwanted} | {
            "PATH": f"{self.env / 'bin'}:{os.environ['PATH']}",
            "DLFD_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            ["sh", "-euc", script], cwd=cwd or self.tree, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def section(name: str) -> str:
    """Return the script of a section of the Apptainer definition."""
    text = (ROOT / "containers" / "dlfd-dist.def").read_text(encoding="utf-8")
    match = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", text, re.M | re.S)
    assert match, name
    return textwrap.dedent(match[1])


def run_lines(path: Path) -> list[str]:
    """Return the commands of a Dockerfile that install with pip."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    runs = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN ")]
    commands = [command.strip() for run in runs for command in run.split("&&")]
    return [command for command in commands if re.search(r"\bpip3? install\b", command)]


def test_the_apptainer_image_passes_its_own_test(installed: Installed):
    assert installed.sh(section("test")).strip().endswith(__version__)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_dockerfile_installs_by_the_steps_that_were_run(name: str):
    """The image for CPUs takes the same torch from an index without CUDA."""
    steps = run_lines(ROOT / "containers" / f"{name}.Dockerfile")
    assert steps
    steps = [re.sub(r" --index-url https://download\.pytorch\.org/whl/cpu", "", s) for s in steps]
    assert steps == [line for line in section("post").splitlines() if "pip install" in line]


def test_dlfd_runs_from_any_directory(installed: Installed, tmp_path: Path):
    elsewhere = tmp_path / "a folder"
    elsewhere.mkdir()
    assert "usage: dlfd VERB" in installed.sh("dlfd --help", elsewhere)
    code = "import dlfd_dist as d, launch as l; print(d.__file__, l.__file__)"
    paths = installed.sh(f"python -c '{code}'", elsewhere).split()
    assert [str(installed.env) in path for path in paths] == [True, True]
    small = (
        "model=small data=synthetic data.image_size=32 data.synthetic.num_identities=8 "
        "data.synthetic.images_per_identity=2 train.epochs=1 metrics.num_bootstrap=10 "
        "forget.fraction=0.3 run.dir=run"
    )
    installed.sh(f"dlfd train {small}", elsewhere)
    assert (elsewhere / "run" / "checkpoints" / "final" / "model.safetensors").is_file()
