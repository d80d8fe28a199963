"""Checkpoints that do not fit, are no checkpoints, or hold no numbers: one sentence, no traces."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlfd_dist.run_dir import RunDir
from tests.fakes.bad_input import Cases, Dlfd, Lab
from tests.fakes.command_line import Ended, read_csv, write_csv

CASES = Cases()


@CASES.add
def no_checkpoint_for_unlearn(lab: Lab):
    words = [w for w in lab.unlearn() if not w.startswith("checkpoint=")]
    return words, ["checkpoint is missing", "checkpoint=PATH"]


@CASES.add
def no_checkpoint_for_evaluate(lab: Lab):
    return ["evaluate", *lab.faces.small, *lab.into], ["checkpoint is missing", "checkpoint=PATH"]


@CASES.add
def checkpoint_missing(lab: Lab):
    return lab.unlearn("checkpoint=no.safetensors"), ["There is no checkpoint at no.safetensors"]


@CASES.add
def checkpoint_of_an_unfinished_run(lab: Lab):
    (lab.folder / "empty").mkdir()
    return lab.unlearn(f"checkpoint={lab.folder / 'empty'}"), ["holds no finished model"]


FITS = ["is of another architecture", "It fits model=small model.head=linear", "set these."]


@CASES.add
def checkpoint_of_another_head(lab: Lab):
    return lab.unlearn("model.head=mlp"), FITS


@CASES.add
def checkpoint_of_another_backbone(lab: Lab):
    return lab.unlearn("model=efficientnet_b0"), FITS


@CASES.add
def checkpoint_of_another_image_size(lab: Lab):
    said = ["was trained with data.image_size=32 (here 48)", "images as it was trained on them"]
    return lab.unlearn("data.image_size=48"), said


@CASES.add
def checkpoint_with_other_classes(lab: Lab):
    lab.edit(3, "label", "2")
    words = lab.unlearn(f"data.root={lab.data}", "data.label=label")
    rows = [[*row[:3], "", *row[4:]] for row in read_csv(lab.manifest)]
    write_csv(lab.manifest, [read_csv(lab.manifest)[0], *rows[1:]])
    return words, ["it has 2 outputs and the data 3 classes", "Check data.label"]


@CASES.add
def checkpoint_of_other_classes(lab: Lab):
    """As many classes as the data, but others."""
    return lab.unlearn("data.label=glasses"), [
        "was trained to tell neutral, smile", "the labels of the data are 0, 1",
        "another checkpoint",
    ]  # fmt: skip


@CASES.add
def checkpoint_malicious(lab: Lab):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(lab.folder / "pwned"),)

    path = lab.file("evil.pth", pickle.dumps({"weight": Touch()}))
    return lab.unlearn(f"checkpoint={path}"), [
        "evil.pth",
        "foreign code is never run",
        "state_dict()",
    ]


@CASES.add
def checkpoint_malicious_in_torch_format(lab: Lab):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(lab.folder / "pwned"),)

    torch.save({"weight": Touch()}, lab.folder / "evil.pth")
    words = lab.unlearn(f"checkpoint={lab.folder / 'evil.pth'}")
    return words, ["evil.pth", "foreign code is never run", "state_dict()"]


@CASES.add
def checkpoint_is_noise(lab: Lab):
    path = lab.file("noise.safetensors", bytes(range(256)))
    return lab.unlearn(f"checkpoint={path}"), ["noise.safetensors is not a readable checkpoint"]


@CASES.add
def reference_missing(lab: Lab):
    return lab.unlearn("reference=no.safetensors"), ["There is no checkpoint at no.safetensors"]


@CASES.add
def teacher_with_other_classes(lab: Lab):
    words, phrases = checkpoint_with_other_classes(lab)
    return [*words, "method=bad_teacher"], phrases


@CASES.add
def teacher_with_other_labels(lab: Lab):
    words = lab.unlearn("method=scrub", "data.label=[smile,glasses,label]")
    return words, ["it has 2 outputs and the data 3", "Check data.label"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_no_trace(name: str, lab: Lab, dlfd: Dlfd):
    lab.check(name, CASES, dlfd)


# --- losses that are no numbers: the run has started, but delivers nothing


def _nan_model(lab: Lab) -> Path:
    state = load_file(RunDir(lab.original).model)
    state["head.0.weight"] = torch.full_like(state["head.0.weight"], float("nan"))
    save_file(state, lab.folder / "nan.safetensors")
    return lab.folder / "nan.safetensors"


@pytest.mark.parametrize("method", ["dlfd", "finetune", "dlfd_official"])
def test_weights_that_are_nan_stop_unlearning(method: str, lab: Lab, dlfd: Dlfd):
    ended = dlfd(*lab.unlearn(f"method={method}", f"checkpoint={_nan_model(lab)}"))
    _delivered_nothing(lab, ended)


def test_weights_that_are_nan_stop_an_evaluation(lab: Lab, dlfd: Dlfd):
    words = ["evaluate", *lab.faces.forget, f"checkpoint={_nan_model(lab)}", *lab.into]
    _delivered_nothing(lab, dlfd(*words))


@pytest.mark.parametrize("max_steps", ["null", "1"])
def test_a_learning_rate_that_overflows_stops_training(max_steps: str, lab: Lab, dlfd: Dlfd):
    ended = dlfd(*lab.train("train.lr=1e30", f"train.max_steps={max_steps}"))
    _delivered_nothing(lab, ended)
    assert not (RunDir(lab.target).checkpoints / "latest").exists()


def _delivered_nothing(lab: Lab, ended: Ended) -> None:
    assert ended.status == 2, ended
    assert "became" in ended.sentence
    assert "checkpoint for NaN" in ended.sentence
    assert not RunDir(lab.target).finished()
    assert not RunDir(lab.target).model.exists()
