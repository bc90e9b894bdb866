"""What a reader is told who builds or feeds a network or an embedding in a way that cannot work."""

import pytest
import torch

from course_lib.models.baselines import MyUNet
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.models.unet2015 import UNet2015, predict_tiled
from course_lib.nn import (
    Downsample,
    ResidualBlock,
    SelfAttention2d,
    Upsample,
    conv_output_size,
    normalisation,
    timestep_embedding,
)

SMALL = DDPMUNetConfig(16, 1, 8, (1, 2), attention=(), groups=4)
T0 = torch.tensor([0])


@pytest.mark.parametrize(
    ("what", "build"),
    [
        ("size=30 cannot be halved 2 times", lambda: DDPMUNetConfig(30)),
        ("use a multiple of 4", lambda: DDPMUNetConfig(30)),
        (r"attention=\(5,\) asks for sizes that do not occur", lambda: DDPMUNetConfig(attention=(5,))),
        ("must be at least 1", lambda: DDPMUNetConfig(blocks=0)),
        ("must be at least 1", lambda: DDPMUNetConfig(mults=(1, 0))),
        ("channels=48 cannot be divided into groups=32", lambda: DDPMUNet(DDPMUNetConfig(width=48))),
        ("1, 2, 3, 4, 6, 8, 12, 16, 24, 48", lambda: normalisation(48)),
        ("norm='layer' is not known", lambda: normalisation(32, kind="layer")),
        ("order='other' is not known", lambda: ResidualBlock(32, 32, 8, order="other")),
        ("heads=3 must divide channels=32", lambda: SelfAttention2d(32, 3)),
        ("method='maximum' is not known; use one of: conv, conv4, max", lambda: Downsample(4, "maximum")),
        ("method='deconv' is not known; use one of: conv, transposed", lambda: Upsample(4, "deconv")),
        ("only an even height and width", lambda: Downsample(4)(torch.zeros(1, 4, 7, 8))),
        ("convention='both' is not known", lambda: timestep_embedding(T0, 8, "both")),
        ("dim=3 is too small; convention 'sin_cos' needs at least 4", lambda: timestep_embedding(T0, 3, "sin_cos")),
        ("kernel=5 .* does not fit into size=3", lambda: conv_output_size(3, 5)),
        (r"x_t has shape \(1, 3, 16, 16\); this network takes 1 channels",
         lambda: DDPMUNet(SMALL)(torch.zeros(1, 3, 16, 16), T0)),
        ("multiples of 2", lambda: DDPMUNet(SMALL)(torch.zeros(1, 1, 15, 16), T0)),
        ("cond=None", lambda: DDPMUNet(SMALL)(torch.zeros(1, 1, 16, 16), T0, torch.zeros(1))),
        (r"MyUNet takes \(batch, 1, 28, 28\) only", lambda: MyUNet()(torch.zeros(1, 1, 32, 32), T0)),
        ("size=512 does not fit a network of depth 4", lambda: UNet2015(width=1)(torch.zeros(1, 1, 512, 572))),
        ("the smallest is 188", lambda: UNet2015(width=1)(torch.zeros(1, 1, 32, 32))),
        ("size=65 does not fit",
         lambda: predict_tiled(UNet2015(width=1, depth=2), torch.zeros(1, 1, 50, 50), 65)),
        ("1 pixel cannot be mirrored", lambda: predict_tiled(UNet2015(width=1, depth=2), torch.zeros(1, 1, 1, 50), 60)),
    ],
)  # fmt: skip
def test_says_what_is_wrong(what, build):
    with pytest.raises(ValueError, match=what):
        build()
