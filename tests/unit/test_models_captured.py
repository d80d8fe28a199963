"""Captured passes: as the passes they were captured from, at the weights and images of now."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlfd_dist.config import MethodConfig, ModelConfig, RuntimeConfig
from dlfd_dist.errors import CaptureError, ConfigError
from dlfd_dist.methods import Updater
from dlfd_dist.models import CapturedModel, FoldedClassifier, build_model
from dlfd_dist.models import captured as captured_passes
from dlfd_dist.models.captured import MAX_SHAPES
from dlfd_dist.models.folded import NOTHING_TO_FOLD
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.sync_bn import freeze_batch_norm
from dlfd_dist.synthesis import frozen
from tests.fakes.cuda_graphs import record_graphs

SHAPE = (4, 3, 32, 32)
STEPS = 4


def classifier():
    return build_model(ModelConfig(name="small"), image_size=32, num_outputs=3, seed=0)


def images(seed: int, num: int = 4) -> torch.Tensor:
    return torch.randn(num, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def passes(folding: FoldedClassifier, seed: int, *, bfloat16: bool = False, num: int = 4):
    """Return features, logits and the gradient of the logits' sum of squares to the images."""
    with folding.computed_in(SHAPE, bfloat16=bfloat16) as model, frozen(model):
        pixels = images(seed, num).requires_grad_(True)
        output = model(pixels)
        (gradient,) = torch.autograd.grad(output.logits.square().sum(), pixels)
    return output.features, output.logits, gradient


def probed(folding: FoldedClassifier, seed: int, num: int = 4) -> torch.Tensor:
    with folding.computed_in(SHAPE, bfloat16=False) as model, frozen(model), torch.no_grad():
        return model(images(seed, num)).logits


def move(model) -> None:
    """Move the weights and the statistics of BatchNorm in place, as an update does."""
    with torch.no_grad():
        for values in (*model.parameters(), *model.buffers()):
            if values.is_floating_point():
                values.mul_(1.25)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_replays_answer_as_eager_passes_do_while_images_and_weights_change(monkeypatch, bfloat16):
    graphs, model = record_graphs(monkeypatch), classifier()
    eager, captured = FoldedClassifier(model), FoldedClassifier(model, cuda_graphs=True)
    for step in range(STEPS):
        answers = [passes(folding, step, bfloat16=bfloat16) for folding in (captured, eager)]
        for ours, plain in zip(*answers, strict=True):
            torch.testing.assert_close(ours, plain)
        move(model)
    # Of forward and backward; the first images of a shape are not captured.
    assert [graph.num_replays for graph in graphs] == [STEPS - 1] * 2


def test_what_was_returned_is_not_written_over(monkeypatch):
    record_graphs(monkeypatch)
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    answers = [probed(folding, seed) for seed in range(STEPS)]
    eager = FoldedClassifier(classifier())
    for seed, ours in enumerate(answers):
        torch.testing.assert_close(ours, probed(eager, seed))


def test_a_shape_that_comes_once_is_not_captured_and_each_other_has_its_own_graph(monkeypatch):
    graphs, model = record_graphs(monkeypatch), classifier()
    eager, captured = FoldedClassifier(model), FoldedClassifier(model, cuda_graphs=True)
    for num in (4, 4, 3, 4, 2, 2):
        torch.testing.assert_close(probed(captured, num, num), probed(eager, num, num))
    assert sum(bool(graph.calls) for graph in graphs) == 2


def test_shapes_of_probes_take_no_place_from_those_of_a_synthesis(monkeypatch):
    graphs, model = record_graphs(monkeypatch), classifier()
    eager, captured = FoldedClassifier(model), FoldedClassifier(model, cuda_graphs=True)
    many = range(2, 4 + MAX_SHAPES[False])
    for num in (*many, *many, *many):
        torch.testing.assert_close(probed(captured, num, num), probed(eager, num, num))
    assert sum(bool(graph.calls) for graph in graphs) == MAX_SHAPES[False]
    for seed in range(STEPS):
        for ours, plain in zip(passes(captured, seed), passes(eager, seed), strict=True):
            torch.testing.assert_close(ours, plain)
    assert [graph.num_replays for graph in graphs[-2:]] == [STEPS - 1] * 2


def test_a_batch_that_does_not_wait_for_its_launches_is_not_captured(monkeypatch):
    graphs = record_graphs(monkeypatch)
    monkeypatch.setattr(captured_passes, "MANY_PIXELS", 4 * 32 * 32)
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    for seed in range(STEPS):
        probed(folding, seed, 4)
    assert not graphs
    for seed in range(STEPS):
        probed(folding, seed, 3)
    assert graphs


def test_weights_of_two_dtypes_keep_their_graphs(monkeypatch):
    graphs = record_graphs(monkeypatch)
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    for step in range(STEPS):
        for bfloat16 in (True, False):
            passes(folding, step, bfloat16=bfloat16)
    assert len(graphs) == 4


def test_weights_that_lie_elsewhere_are_captured_anew(monkeypatch):
    graphs, model = record_graphs(monkeypatch), classifier()
    eager, captured = FoldedClassifier(model), FoldedClassifier(model, cuda_graphs=True)
    for step in range(STEPS):
        if step == 2:
            with torch.no_grad():
                weight = model.module.head[-1].weight
                weight.data = weight * 2
        torch.testing.assert_close(passes(captured, step)[1], passes(eager, step)[1])
    assert len(graphs) == 4


def test_a_cpu_captures_nothing_and_the_log_says_so(caplog):
    caplog.set_level("INFO", "dlfd_dist")
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    answers = [passes(folding, 0) for _ in range(3)]
    assert "run without CUDA graphs: there are none on a cpu device" in caplog.text
    assert caplog.text.count("CUDA graphs") == 1
    for ours, plain in zip(answers[2], passes(FoldedClassifier(classifier()), 0), strict=True):
        assert torch.equal(ours, plain)


class Waits(nn.Module):
    """A layer that asks the device for a value, as a capture and sync_debug_mode=error forbid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if torch.cuda.get_sync_debug_mode() == 0 else self.refuse()

    def refuse(self) -> torch.Tensor:
        raise RuntimeError("called a synchronizing CUDA operation\nmore")


def test_a_pass_that_waits_for_the_device_runs_as_it_is(monkeypatch, caplog):
    graphs, model = record_graphs(monkeypatch), classifier()
    caplog.set_level("INFO", "dlfd_dist")
    folding = FoldedClassifier(model, cuda_graphs=True)
    folding.folded.module.add_module("waits", Waits())
    read = folding.captured.read
    folding.captured.read = lambda module, pixels: read(module, module.waits(pixels))
    answers = [passes(folding, 0) for _ in range(3)]
    assert not graphs
    assert "CUDA graphs: a pass cannot be captured (called a synchronizing" in caplog.text
    assert torch.equal(answers[0][2], answers[2][2])
    assert torch.cuda.get_sync_debug_mode() == 0


def test_a_capture_that_breaks_off_ends_the_run_with_its_first_cause(monkeypatch):
    graphs = record_graphs(monkeypatch)
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    read = folding.captured.read

    def breaks_off(module: nn.Module, pixels: torch.Tensor):
        if graphs:  # a capture is under way
            raise RuntimeError("CUDA error: operation not permitted\nmore")
        return read(module, pixels)

    folding.captured.read = breaks_off
    passes(folding, 0)
    with pytest.raises(
        CaptureError, match=r"\(CUDA error: operation not permitted\): give runtime"
    ):
        passes(folding, 0)
    # Nor can another run of this process.
    with pytest.raises(CaptureError, match="operation not permitted"):
        passes(FoldedClassifier(classifier(), cuda_graphs=True), 0)


def test_a_model_that_is_not_folded_is_not_captured_and_the_log_says_so(caplog):
    caplog.set_level("INFO", "dlfd_dist")
    model = classifier()
    model.module.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    folding = FoldedClassifier(model, cuda_graphs=True)
    assert folding.captured is None
    assert f"as it is, without CUDA graphs: {NOTHING_TO_FOLD}" in caplog.text


def test_graphs_need_folded_weights():
    with pytest.raises(ConfigError, match="runtime.cuda_graphs=true needs runtime.fast=true"):
        RuntimeConfig(cuda_graphs=True, fast=False)


# --- updates


def trained(model, num_steps: int, *, cuda_graphs: bool, frozen_statistics: bool = False):
    """Take so many updates of a model; return the loss of each."""
    cfg = MethodConfig(lr=0.05, clip_norm=1.0, weight_decay=0.01)
    updater = Updater(model, cfg, collectives=Collectives(), cuda_graphs=cuda_graphs)
    losses = []
    for step in range(num_steps):
        model.train()
        if frozen_statistics:
            freeze_batch_norm(model)
        losses.append(updater.classify(images(step), torch.arange(4) % 3, total=4)["loss"])
    return losses


@pytest.mark.parametrize("frozen_statistics", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_updates_from_graphs_leave_the_weights_of_eager_ones(
    monkeypatch, bfloat16, frozen_statistics
):
    graphs = record_graphs(monkeypatch)
    models = classifier(), classifier()
    for model in models:
        model.in_bfloat16 = bfloat16
        start = {name: value.clone() for name, value in model.state_dict().items()}
    ours, plain = (
        trained(model, 4, cuda_graphs=number == 0, frozen_statistics=frozen_statistics)
        for number, model in enumerate(models)
    )
    assert ours == pytest.approx(plain, rel=1e-2 if bfloat16 else 1e-6)
    assert [graph.num_replays for graph in graphs] == [3, 3]
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict())
    moved = {k for k, v in models[0].state_dict().items() if not torch.equal(v, start[k])}
    assert any("running_mean" in name for name in moved) is not frozen_statistics
    assert any("weight" in name for name in moved)


def test_what_an_update_returned_is_not_written_over(monkeypatch):
    record_graphs(monkeypatch)
    model = classifier().train()
    captured = CapturedModel(model)
    answers = [captured(images(seed)).logits for seed in range(STEPS)]
    copies = [answer.detach().clone() for answer in answers]
    captured(images(9))
    for answer, value in zip(answers, copies, strict=True):
        assert torch.equal(answer, value)
        assert answer.requires_grad


def test_a_layer_that_rests_has_graphs_of_its_own(monkeypatch):
    graphs = record_graphs(monkeypatch)
    model = classifier()
    captured = CapturedModel(model)
    for trains in (True, True, False, False, True, False):
        model.train()
        freeze_batch_norm(model, trained_too=not trains)
        model.module.head[-1].weight.requires_grad_(trains)
        captured(images(0)).logits.sum().backward()
    assert [graph.num_replays for graph in graphs] == [2, 2, 2, 2]


@pytest.mark.parametrize("way", ["dropout", "stranger"])
def test_a_model_that_draws_at_random_is_updated_as_it_is(monkeypatch, caplog, way):
    graphs = record_graphs(monkeypatch)
    caplog.set_level("INFO", "dlfd_dist")
    config = ModelConfig(name="small", head="mlp" if way == "dropout" else "linear", dropout=0.3)
    model = build_model(config, image_size=32, num_outputs=3, seed=0)
    model.seeded = way == "stranger"
    trained(model, 3, cuda_graphs=True)
    assert not graphs
    assert "updates run without CUDA graphs: the model draws at random" in caplog.text


def test_a_pass_without_gradient_and_one_of_a_single_image_run_as_they_are(monkeypatch):
    graphs = record_graphs(monkeypatch)
    captured = CapturedModel(classifier())
    for seed in range(3):
        with torch.no_grad():
            captured(images(seed))
        captured(images(seed, 1))
    assert not graphs


def test_updates_in_evaluation_mode_are_captured(monkeypatch):
    graphs = record_graphs(monkeypatch)
    captured = CapturedModel(classifier().eval())
    for seed in range(3):
        captured(images(seed)).logits.sum().backward()
    assert [graph.num_replays for graph in graphs] == [2, 2]


def test_an_older_torch_captures_nothing_and_the_log_says_so(monkeypatch, caplog):
    record_graphs(monkeypatch)
    caplog.set_level("INFO", "dlfd_dist")
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda callables, samples: None)
    trained(classifier(), 3, cuda_graphs=True)
    assert "updates run without CUDA graphs: torch " in caplog.text
