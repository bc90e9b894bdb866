"""Sizes, receptive fields and costs, against the layers themselves."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.nn import Layer, conv_multiplications, conv_output_size, receptive_field, transposed_output_size


def test_sizes_of_convolution_and_pooling():
    for size, kernel, stride, padding, dilation in itertools.product(
        (3, 4, 7, 28), (1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        conv = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
        x = torch.zeros(1, 1, size, size)
        try:
            wanted = conv(x).shape[2]
        except RuntimeError:
            with pytest.raises(ValueError, match=f"kernel={kernel}"):
                conv_output_size(size, kernel, stride, padding, dilation)
            continue
        assert conv_output_size(size, kernel, stride, padding, dilation) == wanted
    assert conv_output_size(4, 2, 2) == nn.MaxPool2d(2)(torch.zeros(1, 1, 4, 4)).shape[2]


def test_sizes_of_transposed_convolution():
    for size, kernel, stride, padding, extra in itertools.product((1, 3, 7), (2, 3, 4), (1, 2, 3), (0, 1), (0, 1)):
        if extra >= stride or (size - 1) * stride + kernel - 2 * padding + extra < 1:
            continue
        layer = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding=extra)
        found = transposed_output_size(size, kernel, stride, padding, extra)
        assert found == layer(torch.zeros(1, 1, size, size)).shape[2]
        assert conv_output_size(found, kernel, stride, padding) == size  # it undoes the size


def test_receptive_field_by_gradient():
    for layers in (
        [Layer(3)],
        [Layer(3), Layer(3)],
        [Layer(3), Layer(3), Layer(2, 2), Layer(3), Layer(3)],
        [Layer(3, 2, 1), Layer(3, 1, 1, 2), Layer(4, 2, 1)],
    ):
        net = nn.Sequential(*(nn.Conv2d(1, 1, *layer, bias=False) for layer in layers)).double()
        for p in net.parameters():
            nn.init.ones_(p)
        x = torch.zeros(1, 1, 61, 61, dtype=torch.float64, requires_grad=True)
        out = net(x)
        out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero()
        assert receptive_field(layers) == (rows.max() - rows.min() + 1).item()


def test_cost_against_the_counter():
    conv = nn.Conv2d(6, 10, 3, padding=1, groups=2, bias=False)
    with FlopCounterMode(display=False) as counter:
        conv(torch.zeros(1, 6, 9, 7))
    assert 2 * conv_multiplications(6, 10, 3, 9, 7, groups=2) == counter.get_total_flops()
