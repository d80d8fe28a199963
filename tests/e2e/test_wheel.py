"""A wheel carries configs and SLURM files, and `dlfd` runs from any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_dlfd_runs_from_any_directory(wheel: Path, tmp_path: Path):
    """Install into an empty environment that borrows this one's packages, but not this checkout."""
    env_dir = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env_dir)], check=True)
    python = env_dir / "bin" / "python"
    install = [*PIP, "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    site = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # An editable install is a .pth file, which PYTHONPATH does not read: the checkout stays hidden.
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")},
        "PYTHONPATH": os.pathsep.join([site, *borrowed]),
        "DLFD_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    elsewhere = tmp_path / "a folder"
    elsewhere.mkdir()

    def run(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(env_dir / "bin" / command), *arguments],
            cwd=elsewhere, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "usage: dlfd VERB" in run("dlfd", "--help")
    code = run("python", "-c", "import dlfd_dist as d, launch as l; print(d.__file__, l.__file__)")
    assert [str(env_dir) in path for path in code.split()] == [True, True]
    small = [
        "model=small", "data=synthetic", "data.image_size=32", "data.synthetic.num_identities=8",
        "data.synthetic.images_per_identity=2", "train.epochs=1", "metrics.num_bootstrap=10",
        "forget.fraction=0.3", "run.dir=run",
    ]  # fmt: skip
    run("dlfd", "train", *small)
    assert (elsewhere / "run" / "checkpoints" / "final" / "model.safetensors").is_file()
