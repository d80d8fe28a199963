"""Rewind: the weights that training kept, and the run that goes on from them without forget."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from dlfd_dist.config import TrainConfig
from dlfd_dist.digests import file_digest
from dlfd_dist.errors import CheckpointError, ConfigError
from dlfd_dist.jobs import run_job
from dlfd_dist.run_dir import RunDir, read_events
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag, StoppedEarly
from launch.plan.compare import comparison_of
from tests.fakes.method_lab import depends_on_forget, equal, lab, moves, weights
from tests.fakes.small_model import TWO_CONVS, small_classifier
from tests.fakes.stops import StopAfter
from tests.fakes.tiny import TINY_FACES

KEPT = (TWO_CONVS, "train.epochs=5", "train.keep_every=2")


def test_rewind_begins_with_the_earlier_weights_and_goes_on_with_retain():
    found = lab("rewind")
    assert equal(weights(found.model), weights(small_classifier(3, seed=7)))
    plain = lab("finetune")
    plain.model.load_state_dict(found.model.state_dict())
    batch = found.batch(next(found.course.turns(0)))
    assert equal(moves(found, batch), moves(plain, batch))
    assert not depends_on_forget(found)


def test_training_keeps_the_weights_of_every_so_many_epochs_but_the_last(trained, tiny, tmp_path):
    run = RunDir(trained(*KEPT))
    assert run.kept_epochs() == [2, 4]
    short = tiny("train", TWO_CONVS, "train.epochs=2", "train.lr_scheduler=constant",
                 f"run.dir={tmp_path / 'short'}")  # fmt: skip
    run_job(short, Collectives(), StopFlag())
    constant = tiny("train", *KEPT, "train.lr_scheduler=constant", f"run.dir={tmp_path / 'long'}")
    run_job(constant, Collectives(), StopFlag())
    # At a constant rate the first epochs are those of a shorter training.
    kept = load_file(RunDir(tmp_path / "long").epoch_model(2))
    assert equal(kept, load_file(RunDir(tmp_path / "short").model))
    assert RunDir(trained(TWO_CONVS)).kept_epochs() == []


def test_a_training_that_was_stopped_keeps_the_same_weights(trained, tiny, tmp_path):
    config = tiny("train", *KEPT, f"run.dir={tmp_path / 'cut'}")
    with pytest.raises(StoppedEarly):
        run_job(config, Collectives(), StopAfter(6))
    run_job(config, Collectives(), StopFlag())
    whole, cut = RunDir(trained(*KEPT)), RunDir(tmp_path / "cut")
    assert cut.kept_epochs() == [2, 4]
    for epoch in (2, 4):
        assert equal(load_file(whole.epoch_model(epoch)), load_file(cut.epoch_model(epoch)))


@pytest.mark.parametrize(
    ("epochs", "epoch", "words", "num_steps"),
    [(1, 4, [], 3), (3, 2, [], 9), (3, 2, ["method.steps=4"], 4), (1, 4, ["method.steps=7"], 7)],
)
def test_a_run_of_rewind_goes_back_as_many_epochs_as_it_is_given(
    epochs, epoch, words, num_steps, trained, tiny, tmp_path
):
    original = trained(*KEPT)
    config = tiny(
        "unlearn", TWO_CONVS, "method=rewind", f"method.epochs={epochs}", "method.lr=1e-30",
        "method.weight_decay=0", "train_mode=frozen", f"checkpoint={original}",
        f"run.dir={tmp_path / 'run'}", *words,
    )  # fmt: skip
    result = run_job(config, Collectives(), StopFlag())
    run = RunDir(tmp_path / "run")
    steps = [e for e in read_events(run.metrics) if e["event"] == "step"]
    assert len(steps) == num_steps
    delivered, kept = load_file(run.model), load_file(RunDir(original).epoch_model(epoch))
    assert all(torch.equal(delivered[k], kept[k]) for k in kept if "num_batches" not in k)
    assert result["against_original"]["weight_change"]["overall"] > 0


def test_the_epochs_that_were_not_kept_are_refused(trained, tiny, tmp_path):
    def run(checkpoint, *words):
        config = tiny("unlearn", TWO_CONVS, "method=rewind", *words, f"checkpoint={checkpoint}",
                      f"run.dir={tmp_path / 'run'}")  # fmt: skip
        run_job(config, Collectives(), StopFlag())

    with pytest.raises(CheckpointError, match=r"epoch 3 of 5, .* method.epochs to one of 1, 3\."):
        run(trained(*KEPT), "method.epochs=2")
    with pytest.raises(CheckpointError, match=r"epoch 1 of 2, .* train it with train.keep_every\."):
        run(trained(TWO_CONVS), "method.epochs=1")
    with pytest.raises(CheckpointError, match="is not the directory of a finished training run"):
        run(RunDir(trained(*KEPT)).model, "method.epochs=1")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_rewound_reads_the_same_weights_and_refuses_the_same(
    trained, tiny, tmp_path
):
    def config(*words: str):
        return tiny(
            "unlearn", TWO_CONVS, "method=dlfm", "method.teacher=rewound", "method.epochs=1",
            "method.dynamic=false", f"checkpoint={trained(*KEPT)}",
            f"run.dir={tmp_path / 'run'}", *words,
        )  # fmt: skip

    with pytest.raises(CheckpointError, match="set method.teacher_back to one of 1, 3"):
        run_job(config("method.teacher_back=2"), Collectives(), StopFlag())
    found = run_job(config("method.teacher_back=1"), Collectives(), StopFlag())
    assert found["passes"] == {"teach": 2.0, "match": 1.0}
    inputs = json.loads(RunDir(tmp_path / "run").identity.read_text())["inputs"]
    assert inputs["rewound"] == file_digest(RunDir(trained(*KEPT)).epoch_model(4))


@pytest.mark.parametrize("value", [0, 30, 31])
def test_keep_every_lies_within_the_training(value):
    with pytest.raises(ConfigError, match="train.keep_every=.* below train.epochs"):
        TrainConfig(keep_every=value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "epoch 20 of 30, .*keep_every=null: set train.keep_every=20"),
        (("train.keep_every=3",), "epoch 20 of 30, .*keep_every=3: set train.keep_every=20"),
        (("train.epochs=8",), "goes back 10 epochs, and Original is trained for 8"),
    ],
)
def test_a_comparison_whose_original_keeps_too_little_is_refused_before_it_begins(words, message):
    with pytest.raises(ConfigError, match=message):
        comparison_of([*TINY_FACES, "method=finetune,rewind", "compare.contrasts=[]", *words])
    comparison_of([*TINY_FACES, "method=finetune", "compare.contrasts=[]", *words])
    comparison_of([*TINY_FACES, "method=rewind", "compare.contrasts=[]", "train.keep_every=5"])


def test_a_comparison_refuses_a_teacher_whose_weights_are_not_kept():
    words = [*TINY_FACES, "method=dlfm", "compare.contrasts=[]", "method.teacher=rewound"]
    with pytest.raises(ConfigError, match="method.teacher=rewound goes back to epoch 20 of 30"):
        comparison_of(words)
    comparison_of([*words, "train.keep_every=5"])
