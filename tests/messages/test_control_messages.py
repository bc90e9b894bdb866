"""What a reader is told who hands a ControlNet something that doesn't fit."""

import pytest
import torch
from torch import nn

from course_lib.data import shapes
from course_lib.data.shapes_control import maps_by_object
from course_lib.evaluation.control import edge_f1, edge_recall
from course_lib.models.controlnet import Control, Controlled, ControlNet, ControlNetConfig
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig

torch.manual_seed(0)
BASE = DDPMUNet(DDPMUNetConfig(16, 3, 8, (1, 2), blocks=1, attention=(8,), groups=4)).eval()
NET = ControlNet(BASE, ControlNetConfig(2, (8, 8)))  # halves the image: 32×32 for pictures of 16×16
X, T = torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
IMAGE = torch.rand(2, 2, 32, 32)
SCENES = shapes.make(2, seed=0)
EDGES = torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: ControlNet(nn.Linear(2, 2)), TypeError, ["base", "Linear", "encode and decode"]),
        (lambda: ControlNetConfig(channels=0), ValueError, ["channels=0"]),
        (lambda: ControlNetConfig(widths=()), ValueError, ["widths=()"]),
        (lambda: ControlNetConfig(widths=(8, 0)), ValueError, ["widths=(8, 0)"]),
        (lambda: ControlNetConfig(encoder="new"), ValueError, ["encoder='new'", "published", "paper"]),
        (lambda: ControlNetConfig(widths=(8, 8), halvings=2), ValueError, ["halvings=2", "2 widths", "possible: 1"]),
        (
            lambda: ControlNetConfig(widths=(8, 8), encoder="paper", halvings=3),
            ValueError,
            ["halvings=3", "possible: 0, 1, 2"],
        ),
        (lambda: Control(NET, None), TypeError, ["image", "NoneType", "[0, 1]"]),
        (lambda: Control(NET, (255 * IMAGE).byte()), TypeError, ["image", "uint8", "[0, 1]"]),
        (lambda: Control(NET, IMAGE[0]), ValueError, ["image", "(2, 32, 32)", "(n, 2, height, width)"]),
        (lambda: Control(NET, IMAGE[:, :1]), ValueError, ["image", "(2, 1, 32, 32)", "(n, 2, height, width)"]),
        (lambda: Control(NET, 2 * IMAGE - 1), ValueError, ["image", "reaches from -", "[0, 1], unlike pictures"]),
        (lambda: Control(NET, 255 * IMAGE), ValueError, ["image", "[0, 1]"]),
        (lambda: Control(NET, IMAGE * torch.nan), ValueError, ["image", "nan", "[0, 1]"]),
        (lambda: Control(NET, IMAGE, -0.5), ValueError, ["strength=-0.5", "between 0", "2"]),
        (lambda: Control(NET, IMAGE, 2.1), ValueError, ["strength=2.1", "between 0", "2"]),
        (lambda: Control(NET, IMAGE, float("nan")), ValueError, ["strength=nan"]),
        (lambda: Control(NET, IMAGE, "1"), TypeError, ["strength", "number", "'1'"]),
        (lambda: Control(NET, IMAGE, True), TypeError, ["strength", "number", "True"]),
        (lambda: Controlled(BASE, [IMAGE]), TypeError, ["controls", "Tensor", "Control(net, image, strength)"]),
        (
            lambda: Controlled(BASE, [Control(NET, IMAGE[..., :16, :16])])(X, T),
            ValueError,
            ["image", "(2, 2, 16, 16)", "(2, 3, 16, 16)", "(2, 2, 32, 32)"],
        ),
        (
            lambda: Controlled(BASE, [Control(NET, IMAGE[..., :31])])(X, T),
            ValueError,
            ["image", "(2, 2, 32, 31)", "(2, 2, 32, 32)"],
        ),
        (
            lambda: Controlled(BASE, [Control(NET, IMAGE[:1])])(X, T),
            ValueError,
            ["image", "(1, 2, 32, 32)", "(2, 2, 32, 32)"],
        ),
        (lambda: NET(X[:1], T[:1], None, IMAGE), ValueError, ["image", "(2, 2, 32, 32)", "(1, 2, 32, 32)"]),
        (
            lambda: maps_by_object("pose", SCENES.images, SCENES.masks, SCENES.geometry),
            ValueError,
            ["kind='pose'", "edges", "keypoints", "masks", "depth"],
        ),
        (lambda: edge_f1(EDGES, EDGES[:1]), ValueError, ["found", "asked", "(2, 1, 8, 8)", "(1, 1, 8, 8)"]),
        (lambda: edge_recall(EDGES, EDGES[..., :4]), ValueError, ["found", "asked", "equal"]),
    ],
)
def test_names_the_argument(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, message


def test_what_fits_is_taken():
    with torch.no_grad():
        for strength in (0, 2, 1, 0.5):
            assert Controlled(BASE, [Control(NET, IMAGE, strength)])(X, T).shape == X.shape
        assert Controlled(BASE, [Control(NET, IMAGE.double())])(X, T).dtype == torch.float32
    assert torch.equal(Control(NET, IMAGE)[1:].image, IMAGE[1:])
