"""The input gradient of a strided convolution over few channels, as one of stride 1.

A library spends three times the arithmetic's time on it for an RGB image (ResNet's first layer, on
a CPU): the stride leaves gaps in its rows, and three channels fill a fifth of a vector. An image in
blocks of s x s pixels has s * s times the channels, and over blocks the stride is 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_CHANNELS = 16
"""Of a block: those of a vector of float32 on a CPU."""


def has_few_channels(conv: nn.Conv2d) -> bool:
    """Whether `strided_conv` does what a convolution does, and pays for it."""
    stride, padding = conv.stride, conv.padding
    return (
        stride[0] == stride[1] > 1
        and conv.in_channels * stride[0] ** 2 <= MAX_CHANNELS
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(padding, str)
        and conv.kernel_size[0] == conv.kernel_size[1]
        and padding[0] == padding[1]
    )


def strided_conv(images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Return conv2d(images, weight, bias); only the images get a gradient.

    images : (n, c, H, W);  weight : (d, c, k, k);  stride, padding : the same on both sides
    """
    return _StridedConv.apply(images, weight, bias, stride, padding)


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, images.shape[2:]
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyrefly: ignore[bad-override]
        (weight,) = ctx.saved_tensors
        return (
            _input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size),
            None, None, None, None,
        )  # fmt: skip


def _input_gradient(
    gradient: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]
) -> Tensor:
    """Return the gradient of an image of `size` (H, W), by a convolution over blocks.

    Pixel s * b + r of the image meets tap k of the output o where s * b + r = s * o - padding + k.
    With k = s * j + r - shift the stride is gone: b = o + j - before.
    """
    before = -(-padding // stride)
    blocks = _in_blocks(weight, stride, before * stride - padding)
    taps = blocks.shape[-1]
    rows, columns = (-(-side // stride) for side in size)
    high, wide = gradient.shape[2:]
    left = taps - 1 - before
    # As much on every side as the largest needs: a convolution pads without a copy.
    pad = max(left, rows + before - high, columns + before - wide, 0)
    turned = blocks.flip(2, 3).transpose(0, 1)
    turned = turned.contiguous(memory_format=torch.channels_last)
    met = F.conv2d(gradient, turned, padding=pad)
    start = pad - left
    met = met[:, :, start : start + rows, start : start + columns]
    return F.pixel_shuffle(met.contiguous(), stride)[:, :, : size[0], : size[1]]


def _in_blocks(weight: Tensor, stride: int, shift: int) -> Tensor:
    """Return (d, c * s * s, j, j) of (d, c, k, k), whose first tap is moved by `shift`."""
    outputs, channels, taps, _ = weight.shape
    number = -(-(shift + taps) // stride)
    end = number * stride - shift - taps
    weight = F.pad(weight, (shift, end, shift, end))
    split = weight.reshape(outputs, channels, number, stride, number, stride)
    return split.permute(0, 1, 3, 5, 2, 4).reshape(outputs, -1, number, number)
