"""A classifier in evaluation mode with its BatchNorm folded into the convolutions before it.

While weights stand still, BatchNorm is a line per channel, and the convolution before it can draw
that line itself: two passes over memory less, forward and backward. The folded weights are computed
once and held in the precision of the forward passes, where autocast would cast the weights anew in
each. Source of the arithmetic: torch.nn.utils.fusion.
"""

from __future__ import annotations

import contextlib
import logging
import operator
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..runtime.sync_bn import GlobalBatchNorm2d
from .captured import CapturedReader
from .classifier import Classifier, computed_in
from .features import InputOf
from .strided import has_few_channels, strided_conv

logger = logging.getLogger(__name__)

MANY_PIXELS = 2**16
"""Pixels of a batch from which a CPU is faster with channels_last: oneDNN reorders all other images
before and after a convolution, and of fewer pixels its reordering of the weights costs more
(ResNet18, 4 images of 128 pixels: 0.85 of the time; 4 of 32: 1.25)."""
NOTHING_TO_FOLD = "it has no convolution with BatchNorm after it"


class FoldedConv(nn.Module):
    """A convolution that does what it and the BatchNorm after it do in evaluation mode."""

    def __init__(self, conv: nn.Conv2d, norm: _BatchNorm):
        super().__init__()
        self.conv, self.norm = conv, norm
        self.weight: Tensor
        self.bias: Tensor
        for name in ("weight", "bias"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.few_channels = has_few_channels(conv)
        self._places: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def fold(
        self,
        dtype: torch.dtype | None,
        memory_format: torch.memory_format,
        *,
        in_place: bool = False,
    ) -> None:
        """Take the weights of this moment, in `dtype` or their own.

        in_place : write them where those of this dtype and format were written before
        """
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
            norm.bias,
        )  # fmt: skip
        dtype = dtype or conv.weight.dtype
        folded = weight.detach().to(dtype, memory_format=memory_format), bias.detach().to(dtype)
        if in_place:
            place = self._places.setdefault((dtype, memory_format, weight.device), folded)
            for there, now in zip(place, folded, strict=True):
                there.copy_(now)
            folded = place
        self.weight, self.bias = folded

    def forward(self, input: Tensor) -> Tensor:
        if self.few_channels:
            stride, padding = self.conv.stride[0], int(self.conv.padding[0])
            return strided_conv(input.to(self.weight), self.weight, self.bias, stride, padding)
        return self.conv._conv_forward(input, self.weight, self.bias)


class _Tracer(fx.Tracer):
    """Keeps our own BatchNorm whole, as torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


class FoldedClassifier:
    """The classifier that syntheses and probes forward: folded where that can be.

    Attributes
    ----------
    why_not : why it is the classifier itself; None of one that is folded
    captured : what replays its passes from CUDA graphs, where `cuda_graphs` asks for it
    """

    def __init__(self, model: Classifier, *, fold: bool = True, cuda_graphs: bool = False):
        self.folded, self.layers = model, list[FoldedConv]()
        self.captured = CapturedReader(model.read) if cuda_graphs else None
        self.why_not: str | None = None if fold else "runtime.fast=false"
        if fold:
            self._fold(model)
        if self.why_not:
            without = ", without CUDA graphs" if self.captured else ""
            self.captured = None
            logger.info(
                "syntheses and probes forward the model as it is%s: %s", without, self.why_not
            )

    def _fold(self, model: Classifier) -> None:
        if not isinstance(model.read, InputOf):
            # A layer whose output is read must stay, and a function may call anything.
            self.why_not = "its features are read at a layer, or by a function"
            return
        try:
            module, self.layers = _fold_module(model.module)
        except Exception as err:  # noqa: BLE001 - tracing runs the forward of any module
            self.why_not = f"torch.fx cannot trace it ({type(err).__name__}: {err})"
            return
        if self.layers:
            self.folded = Classifier(module, self.captured or model.read)
        else:
            self.why_not = NOTHING_TO_FOLD

    @contextlib.contextmanager
    def computed_in(self, shape: Sequence[int], *, bfloat16: bool) -> Iterator[Classifier]:
        """Yield a classifier for evaluation mode, with the weights that the model has now.

        It computes its forward passes in bfloat16, or in the model's own dtype.

        shape : (n, channels, H, W) of the batches that it will be given
        """
        for layer in self.layers:
            memory_format = _memory_format(shape, layer.conv.weight.device)
            layer.fold(
                torch.bfloat16 if bfloat16 else None, memory_format,
                in_place=self.captured is not None,
            )  # fmt: skip
        if self.captured:
            self.captured.renew(self.folded.module)
        with computed_in(self.folded, bfloat16=bfloat16):
            yield self.folded


def _memory_format(shape: Sequence[int], device: torch.device) -> torch.memory_format:
    """Return the memory format in which convolutions of such images are fastest."""
    num, _, height, width = shape
    if device.type == "cpu" and num * height * width >= MANY_PIXELS:
        return torch.channels_last
    return torch.preserve_format


def _fold_module(module: nn.Module) -> tuple[nn.Module, list[FoldedConv]]:
    """Return a copy of the module's graph that shares its modules, and what was folded in it."""
    training = {name: layer.training for name, layer in module.named_modules()}
    module.eval()
    try:
        graph = _Tracer().trace(module)
    finally:
        for name, layer in module.named_modules():
            layer.training = training[name]
    folded = fx.GraphModule(module, graph)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    layers = []
    for node in list(graph.nodes):
        pair = _conv_and_norm(folded, node, calls)
        if pair is None:
            continue
        conv_node = node.args[0]
        layers.append(FoldedConv(*pair))
        folded.set_submodule(str(conv_node.target), layers[-1])
        node.replace_all_uses_with(conv_node)
        graph.erase_node(node)
    for node in list(graph.nodes):
        _pool_before_relu(folded, node)
        _reshape_for_view(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded, layers


def _conv_and_norm(
    module: fx.GraphModule, node: fx.Node, calls: Counter
) -> tuple[nn.Conv2d, _BatchNorm] | None:
    """Return the layers of a BatchNorm node and of the convolution that nothing else reads."""
    if node.op != "call_module" or not node.args or calls[node.target] > 1:
        return None
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
        return None
    if calls[before.target] > 1:
        return None
    conv, norm = (operator.attrgetter(str(n.target))(module) for n in (before, node))
    # A BatchNorm of another library may do more, as timm's does its activation.
    if type(conv) is not nn.Conv2d or type(norm) not in (nn.BatchNorm2d, GlobalBatchNorm2d):
        return None
    if norm.running_mean is None or conv._forward_hooks or norm._forward_hooks:
        return None
    return conv, norm


def _pool_before_relu(module: fx.GraphModule, pool: fx.Node) -> None:
    """Let a ReLU follow the maximum that followed it: the same values, of a quarter of the pixels.

    Where all of a window is negative another pixel is the largest, and no gradient reaches it.
    """
    if pool.op != "call_module" or not pool.args or not isinstance(relu := pool.args[0], fx.Node):
        return
    if relu.op != "call_module" or len(relu.users) > 1 or len(relu.args) != 1:
        return
    layers = (operator.attrgetter(str(n.target))(module) for n in (relu, pool))
    if tuple(map(type, layers)) != (nn.ReLU, nn.MaxPool2d):
        return
    pool.replace_all_uses_with(relu)
    pool.args = (relu.args[0], *pool.args[1:])
    relu.args = (pool,)
    pool.append(relu)


def _reshape_for_view(node: fx.Node) -> None:
    """Let a view of sizes be a reshape, which takes images of any memory format."""
    if (
        node.op == "call_method"
        and node.target == "view"
        and torch.dtype not in map(type, node.args)
    ):
        node.target = "reshape"
