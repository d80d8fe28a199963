"""Captured passes: as the passes they were captured from, at the weights and images of now."""

from __future__ import annotations

import pytest
import torch

from dlfd_dist.config import ModelConfig, RuntimeConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.models.captured import MAX_SHAPES
from dlfd_dist.synthesis import frozen
from tests.fakes.cuda_graphs import RecordedGraph, record_graphs

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
    found = [probed(folding, seed) for seed in range(STEPS)]
    eager = FoldedClassifier(classifier())
    for seed, ours in enumerate(found):
        torch.testing.assert_close(ours, probed(eager, seed))


def test_a_shape_that_comes_once_is_not_captured_and_each_other_has_its_own_graph(monkeypatch):
    graphs, model = record_graphs(monkeypatch), classifier()
    eager, captured = FoldedClassifier(model), FoldedClassifier(model, cuda_graphs=True)
    for num in (4, 4, 3, 4, 2, 2):
        torch.testing.assert_close(probed(captured, num, num), probed(eager, num, num))
    assert sum(bool(graph.calls) for graph in graphs) == 2
    for num in (*range(5, 5 + MAX_SHAPES), *range(5, 5 + MAX_SHAPES)):
        torch.testing.assert_close(probed(captured, num, num), probed(eager, num, num))
    assert sum(bool(graph.calls) for graph in graphs) == MAX_SHAPES - 1


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


def test_a_pass_that_cannot_be_captured_runs_as_it_is(monkeypatch, caplog):
    graphs = record_graphs(monkeypatch)
    caplog.set_level("INFO", "dlfd_dist")

    def refuse(self: RecordedGraph) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(RecordedGraph, "__init__", refuse)
    folding = FoldedClassifier(classifier(), cuda_graphs=True)
    answers = [passes(folding, 0) for _ in range(3)]
    assert not graphs
    assert "CUDA graphs: operation not permitted when stream is capturing" in caplog.text
    assert torch.equal(answers[0][2], answers[2][2])


def test_graphs_need_folded_weights():
    with pytest.raises(ConfigError, match="runtime.cuda_graphs=true needs runtime.fast=true"):
        RuntimeConfig(cuda_graphs=True, fast=False)
