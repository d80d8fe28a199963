"""Exported models answer as the run's do, under the names of the file that came in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dlfd_dist.compose import compose_job
from dlfd_dist.jobs import export as exporting
from dlfd_dist.jobs import run_job
from dlfd_dist.models import build_model, load_weights
from dlfd_dist.models.weights import tensors_of
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from launch.cli import main
from tests.fakes.models import build
from tests.fakes.strangers import WORDS
from tests.fakes.strangers import build as strangers
from tests.fakes.tiny import TINY_FACES


def foreign(name: str) -> str:
    """Return a name of ours as a wrapped torchvision network has it."""
    return "module." + name.replace("backbone.", "").replace("head.0.", "fc.")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that began with a wrapped checkpoint in half precision."""
    folder = tmp_path_factory.mktemp("export")
    state = build("small", num_outputs=2).state_dict()
    held = {foreign(n): t.half() if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"epoch": 3, "optimizer": {"step": 4}, "state_dict": held}, folder / "came.pth")
    words = [
        "model=small", *TINY_FACES, *WORDS, "method=finetune", "runtime.dtype=float32",
        f"checkpoint={folder / 'came.pth'}", f"run.dir={folder / 'run'}",
    ]  # fmt: skip
    run_job(compose_job("unlearn", words), Collectives(), StopFlag())
    return folder / "run"


@pytest.fixture
def answers(run_dir: Path) -> tuple[Tensor, Tensor]:
    """Images, and the logits of the run's model."""
    config = compose_job("train", ["model=small"])
    model = build_model(config.model, image_size=32, num_outputs=2, seed=9)
    load_weights(model, run_dir)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, model.eval()(images).logits


def exported(capsys, run_dir: Path, *words: str) -> dict[str, Any]:
    assert main(["export", str(run_dir), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_state_dict_drops_into_where_it_came_from(capsys, run_dir: Path, answers):
    told = exported(capsys, run_dir, "--to", "state-dict")
    assert told["file"] == str(run_dir / "export" / "model.pth")
    assert told["compared"] == "outputs of 4 and 3 images"
    came = torch.load(run_dir.parent / "came.pth", weights_only=True)["state_dict"]
    written = torch.load(told["file"], weights_only=True)
    assert list(written) == ["state_dict"]  # the optimizer knows the forgotten images
    shapes = {n: (t.shape, t.dtype) for n, t in written["state_dict"].items()}
    assert shapes == {n: (t.shape, t.dtype) for n, t in came.items()}
    delivered = load_file(run_dir / "checkpoints" / "final" / "model.safetensors")
    for name, tensor in delivered.items():
        assert torch.equal(written["state_dict"][foreign(name)], tensor.to(came[foreign(name)]))
    assert any(not torch.equal(written["state_dict"][n], came[n]) for n in came)


def test_onnx_answers_alike_under_the_names_that_came(capsys, run_dir: Path, answers):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: 'dlfd-dist[export]'")
    import onnx
    import onnxruntime

    told = exported(capsys, run_dir, "--to", "onnx")
    names = {tensor.name for tensor in onnx.load(told["file"]).graph.initializer}
    assert {"module.conv1.weight", "module.bn1.running_mean", "module.fc.bias"} <= names
    session = onnxruntime.InferenceSession(told["file"], providers=["CPUExecutionProvider"])
    images, logits = answers
    (given,) = session.run(["logits"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [1.0, torch.nan])
def test_a_file_that_answers_otherwise_is_never_there(
    capsys, monkeypatch: pytest.MonkeyPatch, run_dir: Path, tmp_path: Path, wrong: float
):
    def read(file: Path) -> dict[str, Tensor]:
        tensors = tensors_of(file)
        if file.parent != tmp_path:
            return tensors
        last = next(name for name in tensors if name.endswith("fc.bias"))
        return {**tensors, last: tensors[last] + wrong}

    monkeypatch.setattr(exporting, "tensors_of", read)
    words = ["--to", "state-dict", "--out", str(tmp_path / "m.pth")]
    assert main(["export", str(run_dir), *words]) == 1
    assert "answers otherwise than the run's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(capsys, run_dir: Path, tmp_path: Path):
    words = ["--to", "onnx", "--out", str(tmp_path / "m.onnx"), "--dry-run"]
    assert exported(capsys, run_dir, *words)["names"][0].startswith("module.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--to", "onnxx"], "--to onnxx is not known. Available: .* Did you mean 'onnx'"),
        ([], "--to is missing: give --to state-dict|torch-export|onnx"),
        (["--to"], "--to needs a form: --to onnx."),
        (["--to", "onnx", "method=dlfd"], "takes no method, only checkpoint, model.factory"),
        (["--to", "state-dict", "--out", "{run}"], "is a directory: give the name of a file"),
        (["--to", "state-dict", "--out", "{came}"], "is the model itself: give another name"),
        (["--to", "state-dict", "checkpoint={run}/config.yaml"], "is not the file that"),
        (["--to", "state-dict", "checkpoint=/nowhere.pth"], "is not there any more"),
        (["{run}", "--to", "onnx"], "was given 2 runs: give the directory of one"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(capsys, run_dir: Path, words, match: str):
    places = {"run": str(run_dir), "came": str(run_dir.parent / "came.pth")}
    assert main(["export", str(run_dir), *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert re.search(match, said), said


def test_a_run_that_is_not_finished_is_refused(capsys, tmp_path: Path):
    assert main(["export", str(tmp_path), "--to", "onnx"]) == 2
    assert "holds no finished model" in capsys.readouterr().err


def test_a_program_needs_code_that_is_not_called_unasked(capsys, tmp_path: Path):
    words = [
        "model.factory=tests.fakes.strangers:build", "data.factory=tests.fakes.strangers:splits",
        *WORDS, "method=finetune", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    torch.save(strangers().state_dict(), tmp_path / "w.pth")
    config = compose_job("unlearn", [*words, f"checkpoint={tmp_path / 'w.pth'}"])
    run_job(config, Collectives(), StopFlag())
    assert main(["export", str(tmp_path / "run"), "--to", "torch-export"]) == 2
    assert (
        "add model.factory=tests.fakes.strangers:build if you trust it" in capsys.readouterr().err
    )
    assert exported(capsys, tmp_path / "run", "--to", "state-dict")["compared"] == "weights"
    file = tmp_path / "new" / "model.pt2"
    exported(capsys, tmp_path / "run", "--to", "torch-export", words[0], "--out", str(file))
    program = torch.export.load(file)
    assert program.state_dict.keys() >= {"stem.weight", "norm.running_var", "answer.bias"}
    net = strangers().double().eval()
    net.load_state_dict(load_file(tmp_path / "run" / "checkpoints" / "final" / "model.safetensors"))
    images = torch.randn(5, 1, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(program.module()(images), net(images), rtol=1e-9, atol=1e-9)
