"""BatchNorm folded into convolutions: the same outputs and gradients, at the weights of now."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlfd_dist.config import ModelConfig
from dlfd_dist.models import FoldedClassifier, build_model
from dlfd_dist.models.folded import NOTHING_TO_FOLD
from dlfd_dist.models.strided import has_few_channels, strided_conv
from dlfd_dist.synthesis import frozen

PAIRS = {"small": 9, "resnet18": 20, "densenet121": 59, "efficientnet_b0": 49}


def classifier(name: str = "small", dtype: torch.dtype = torch.float64):
    """Return a classifier whose BatchNorm has statistics, weights and biases of its own."""
    model = build_model(ModelConfig(name=name), image_size=32, num_outputs=3, seed=0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values, low in (
                (module.running_mean, -0.5), (module.running_var, 0.5),
                (module.weight.data, 0.5), (module.bias.data, -0.5),
            ):  # fmt: skip
                values.copy_(torch.rand(values.shape, generator=generator, dtype=dtype) + low)
    return model


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=dtype)


def answers(model) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features, logits and the gradient of the logits' sum of squares to the images."""
    with frozen(model):
        pixels = images(next(model.parameters()).dtype).requires_grad_(True)
        output = model(pixels)
        (gradient,) = torch.autograd.grad(output.logits.square().sum(), pixels)
    return output.features, output.logits, gradient


@pytest.mark.parametrize("name", PAIRS)
def test_a_folded_model_answers_as_the_model_does(name):
    model = classifier(name)
    folding = FoldedClassifier(model)
    assert folding.why_not is None
    assert len(folding.layers) == PAIRS[name]
    for shape in ((4, 3, 32, 32), (64, 3, 64, 64)):
        with folding.computed_in(shape, bfloat16=False) as folded:
            for ours, plain in zip(answers(folded), answers(model), strict=True):
                atol = 1e-9 * plain.abs().max().item()
                torch.testing.assert_close(ours, plain, rtol=1e-9, atol=atol)


def test_the_weights_are_those_of_the_moment():
    model = classifier()
    folding = FoldedClassifier(model)
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
            model.module.backbone.get_buffer("bn1.running_mean").add_(0.3)
        with folding.computed_in((4, 3, 32, 32), bfloat16=False) as folded:
            torch.testing.assert_close(answers(folded)[1], answers(model)[1])


def test_bfloat16_holds_the_folded_weights_in_it_and_answers_in_the_models_dtype():
    model = classifier(dtype=torch.float32)
    folding = FoldedClassifier(model)
    with folding.computed_in((4, 3, 32, 32), bfloat16=True) as folded:
        assert {layer.weight.dtype for layer in folding.layers} == {torch.bfloat16}
        logits = answers(folded)[1]
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, answers(model)[1], rtol=0.1, atol=0.1)
    with folding.computed_in((4, 3, 32, 32), bfloat16=False) as folded:
        torch.testing.assert_close(answers(folded)[1], answers(model)[1], rtol=1e-4, atol=1e-5)


def test_the_model_itself_stays_as_it_is():
    model = classifier().train()
    model.module.backbone.get_submodule("bn1").eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    with FoldedClassifier(model).computed_in((4, 3, 32, 32), bfloat16=False) as folded:
        answers(folded)
    assert [m.training for m in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


class _Asks(nn.Module):
    """A backbone whose path depends on the pixels: torch.fx cannot trace it."""

    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [(_Asks(), "torch.fx cannot trace it"), (nn.AdaptiveAvgPool2d(1), NOTHING_TO_FOLD)],
)
def test_a_model_that_cannot_be_folded_is_forwarded_as_it_is(backbone, reason, caplog):
    model = build_model(ModelConfig(name="small"), image_size=32, num_outputs=3, seed=0)
    model.module.backbone = backbone
    caplog.set_level("INFO", "dlfd_dist")
    folding = FoldedClassifier(model)
    assert reason in folding.why_not
    assert f"syntheses and probes forward the model as it is: {folding.why_not}" in caplog.text
    with folding.computed_in((4, 3, 32, 32), bfloat16=False) as folded:
        assert folded is model


def test_a_convolution_that_something_else_reads_is_not_folded():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            conv = self.conv(x)
            return self.norm(conv) + conv

    model = build_model(ModelConfig(name="small"), image_size=32, num_outputs=3, seed=0)
    model.module.backbone = Reads()
    assert FoldedClassifier(model).why_not == NOTHING_TO_FOLD


@pytest.mark.parametrize(("side", "many"), [(64, False), (128, True)])
def test_weights_are_channels_last_where_the_batch_has_many_pixels(side, many):
    folding = FoldedClassifier(classifier())
    with folding.computed_in((4, 3, side, side), bfloat16=False):
        for layer in folding.layers:
            if layer.weight[0, 0].numel() > 1:
                last = layer.weight.is_contiguous(memory_format=torch.channels_last)
                assert last is many


class _Pooled(nn.Module):
    """A backbone that pools after its ReLU and views what the convolution wrote."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x):
        pooled = self.pool(self.relu(self.norm(self.conv(x))))
        return pooled.view(x.size(0), -1)


def test_a_relu_before_a_maximum_and_a_view_are_folded_too():
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="small"), image_size=32, num_outputs=3, seed=0)
    model.module.backbone = _Pooled()
    model.module.head = nn.Sequential(nn.Linear(6 * 15 * 15, 3))
    model = model.double()
    folding = FoldedClassifier(model)
    assert folding.why_not is None
    with folding.computed_in((64, 3, 64, 64), bfloat16=False) as folded:
        for ours, plain in zip(answers(folded), answers(model), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), itertools.product((1, 3, 4, 7), (2, 3), (0, 1, 3))
)
def test_the_gradient_over_blocks_is_that_of_the_strided_convolution(kernel, stride, padding):
    generator = torch.Generator().manual_seed(kernel)
    draw = {"dtype": torch.float64, "generator": generator}
    pixels = torch.randn(2, 3, 13, 8, **draw).requires_grad_(True)
    weight, bias = torch.randn(5, 3, kernel, kernel, **draw), torch.randn(5, **draw)
    plain = F.conv2d(pixels, weight, bias, stride, padding)
    ours = strided_conv(pixels, weight, bias, stride, padding)
    assert torch.equal(ours, plain)
    upper = torch.randn(plain.shape, **draw)
    expected, gradient = (torch.autograd.grad(o, pixels, upper)[0] for o in (plain, ours))
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "takes_it"),
    [
        (nn.Conv2d(3, 8, 7, 2, 3), True), (nn.Conv2d(1, 8, 3, 3), True),
        (nn.Conv2d(3, 8, 3), False), (nn.Conv2d(64, 8, 3, 2), False),
        (nn.Conv2d(3, 8, 4, 4), False), (nn.Conv2d(3, 6, 3, 2, groups=3), False),
        (nn.Conv2d(3, 8, 3, 2, dilation=2), False), (nn.Conv2d(3, 8, 3, (2, 1)), False),
        (nn.Conv2d(3, 8, 3, 2, 1, padding_mode="reflect"), False),
    ],
)  # fmt: skip
def test_blocks_are_for_strided_convolutions_over_few_channels(conv, takes_it):
    assert has_few_channels(conv) is takes_it
