"""`dlfd inspect` knows whose weights a file has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dlfd_dist.compose import compose_job
from dlfd_dist.models import build_model, check_weights, save_weights
from launch.cli import main
from tests.fakes.models import build
from tests.fakes.strangers import build as strangers


@pytest.fixture
def inspected(capsys: pytest.CaptureFixture[str]):
    def run(path: Path) -> dict:
        assert main(["inspect", str(path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("wrap", ["plain", "half", "lightning", "compiled"])
def test_our_models_are_known_however_they_are_wrapped(tmp_path: Path, inspected, wrap: str):
    state = build("small", head="mlp", num_outputs=7).state_dict()
    prefix = {"compiled": "_orig_mod.", "lightning": "model."}.get(wrap, "")
    state = {prefix + n: t.half() if wrap == "half" else t for n, t in state.items()}
    held = {"epoch": 3, "state_dict": state} if wrap == "lightning" else state
    torch.save(held, tmp_path / "w.pth")
    found = inspected(tmp_path / "w.pth")
    assert found["num_outputs"] == 7
    assert found["fits"] == [
        f"model=small model.head=mlp model.small_stem={stem}" for stem in ("false", "true")
    ]
    words = found["command"].split()[2:]
    config = compose_job("train", [w for w in words if w.startswith("model")])
    model = build_model(config.model, image_size=32, num_outputs=7, seed=0)
    check_weights(model, tmp_path / "w.pth")


def test_a_strangers_weights_are_said_to_need_their_function(tmp_path: Path, inspected, capsys):
    save_weights(strangers(), tmp_path / "w.safetensors")
    found = inspected(tmp_path / "w.safetensors")
    assert (found["fits"], found["first_name"]) == ([], "answer.bias")
    assert "model.factory=MODULE:FUNCTION" in found["command"]
    assert main(["inspect", str(tmp_path / "w.safetensors")]) == 0
    assert "outputs      not known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "match"),
    [([], "was given nothing: give a file"), (["/nowhere.pth"], "There is no checkpoint at")],
)
def test_what_is_no_checkpoint_is_one_sentence(capsys, words: list[str], match: str):
    assert main(["inspect", *words]) == 2
    assert match in capsys.readouterr().err
