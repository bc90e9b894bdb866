"""What a reader is told who builds or feeds a GAN, or its game on tables, in a way that cannot work."""

import pytest
import torch

from course_lib.foundations import game_value, optimal_discriminator
from course_lib.models.gan import Discriminator, GANConfig, Generator, generator_loss
from course_lib.models.points import PointDenoiser, PointDiscriminator, PointGenerator
from course_lib.recipes import gan_fashion
from course_lib.recipes import ring as ring_recipe
from course_lib.training import GANObjective

SMALL = GANConfig(8, 1, 4, 3, generator=(8, 8), discriminator=(8,), groups=4)
HALF = torch.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    ("says", "do"),
    [
        (r"size=12 cannot be halved 3 times, as generator=\(8, 8, 8, 8\) asks; use a multiple of 8",
         lambda: GANConfig(12, generator=(8,) * 4)),
        (r"generator=\(8,\) .* at least one change of size", lambda: GANConfig(generator=(8,))),
        (r"discriminator=\(0,\) must hold widths of at least 1", lambda: GANConfig(discriminator=(0,))),
        ("latent and hidden must be at least 1", lambda: GANConfig(latent=0)),
        ("classes at least 0", lambda: GANConfig(classes=-1)),
        (r"channels=6 cannot be divided into groups=4", lambda: Generator(GANConfig(generator=(8, 6, 8), groups=4))),
        (r"z has shape \(2, 5\); this generator takes \(n, 4\)", lambda: Generator(SMALL)(torch.zeros(2, 5))),
        ("label is missing, but this network needs label=, one of 3",
         lambda: Generator(SMALL)(torch.zeros(2, 4))),
        (r"label has shape \(3,\), but there are 2 examples",
         lambda: Generator(SMALL)(torch.zeros(2, 4), torch.zeros(3, dtype=torch.long))),
        (r"x has shape \(2, 1, 9, 8\); this takes \(n, 1, 8, 8\)",
         lambda: Discriminator(SMALL)(torch.zeros(2, 1, 9, 8), torch.zeros(2, dtype=torch.long))),
        ("label is given, but this network takes no label=",
         lambda: PointGenerator()(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))),
        (r"z has shape \(2,\); this network takes \(n, 2\)", lambda: PointGenerator()(torch.zeros(2))),
        (r"x has shape \(1, 3\); this network takes \(n, 2\)", lambda: PointDiscriminator()(torch.zeros(1, 3))),
        (r"x_t has shape \(1, 3\); this network takes \(n, 2\)",
         lambda: PointDenoiser()(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))),
        ("must be at least 1", lambda: PointGenerator(width=0)),
        ("kind='wasserstein' is not known; use one of: non_saturating, saturating",
         lambda: generator_loss(torch.zeros(2), "wasserstein")),
        ("gamma=-1 must not be negative", lambda: GANObjective(gamma=-1)),
        ("every=0 must be at least 1", lambda: GANObjective(every=0)),
        ("d must lie between 0 and 1: give probabilities of 'real', which are the sigmoid of a score",
         lambda: game_value(HALF, HALF, torch.tensor([0.5, 3.0]))),
        ("p_model must sum to 1", lambda: game_value(HALF, HALF * 2, 0.5)),
        ("these must have the same length: p_data", lambda: game_value(HALF, torch.ones(3) / 3, 0.5)),
        ("these shapes do not fit together: p_data", lambda: game_value(HALF, HALF, torch.zeros(3))),
        ("p_data must not be negative", lambda: optimal_discriminator(-HALF, HALF)),
        ("these shapes do not fit together: p_data", lambda: optimal_discriminator(HALF, torch.ones(3))),
        ("method='gans' is not known; use one of: plain_gan, gan, vae, ddpm", lambda: ring_recipe.run("gans")),
        ("method='vea' is not known", lambda: ring_recipe.draw("vea", PointGenerator())),
        ("n=0 must be at least 1", lambda: gan_fashion.draw(Generator(SMALL), 0)),
    ],
)  # fmt: skip
def test_says(says, do):
    with pytest.raises(ValueError, match=says):
        do()
