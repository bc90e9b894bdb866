"""What a reader is told who builds or feeds a VAE in a way that cannot work."""

import pytest
import torch
from torch import nn

from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig
from course_lib.models.gaussian_latent import DiagonalGaussian
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_density import fit_mixture
from course_lib.models.linear_vae import LinearVAE
from course_lib.models.vae import (
    VAE,
    bernoulli_log_likelihood,
    binarise,
    gaussian_log_likelihood,
    latent_walk,
    log_likelihood_bound,
)
from course_lib.nn import ResidualBlock
from course_lib.recipes import vae_digits, vae_fashion

TINY = ConvVAEConfig(size=8, widths=(4,), hidden=0, latent=2)
BITS = ConvVAEConfig(size=8, widths=(4,), likelihood="bernoulli")
SMALL = KLAutoencoderConfig(size=8, width=4, mults=(1, 1), groups=2)
ZEROS = torch.zeros(2, 1, 8, 8)
LINE = LinearVAE(torch.tensor([[1.0], [2.0]]))


@pytest.mark.parametrize(
    ("what", "build"),
    [
        ("size=28 cannot be halved 3 times", lambda: ConvVAEConfig(widths=(8, 8, 8))),
        ("use a multiple of 8, pad the pictures, or give fewer widths", lambda: ConvVAEConfig(widths=(8, 8, 8))),
        ("widths=.* must hold at least one", lambda: ConvVAEConfig(widths=())),
        (r"x has shape \(2, 1, 9, 8\); this encoder takes \(batch, 1, 8, 8\)",
         lambda: ConvVAE(TINY).encode(torch.zeros(2, 1, 9, 8))),
        (r"z has shape \(2, 3\); it needs \(batch, 2\)", lambda: ConvVAE(TINY).decode(torch.zeros(2, 3))),
        (r"noise has shape \(1, 2\), but mean \(2, 2\)", lambda: ConvVAE(TINY)(ZEROS, torch.zeros(1, 2))),
        ("likelihood='poisson' is not known; use 'bernoulli' or 'gaussian'",
         lambda: VAE(nn.Identity(), nn.Identity(), 2, "poisson")),
        ("latent=0 must be at least 1", lambda: VAE(nn.Identity(), nn.Identity(), 0)),
        ("variance=0 must be positive", lambda: VAE(nn.Identity(), nn.Identity(), 2, variance=0)),
        ("but the decoder gives", lambda: ConvVAE(TINY).log_likelihood(ZEROS[:, :, 1:], torch.zeros(2, 2))),
        ("0 and 1 only, .* use `binarise", lambda: bernoulli_log_likelihood(ZEROS, ZEROS + 0.5)),
        ("0 and 1 only", lambda: ConvVAE(BITS)(ZEROS - 1, torch.zeros(2, 16))),
        (r"images must lie in \[-1, 1\], but reach 0 … 255", lambda: binarise(torch.tensor([0.0, 255.0]))),
        ("variance=-1 must be positive", lambda: gaussian_log_likelihood(ZEROS, ZEROS, -1)),
        ("draws=0 must be at least 1", lambda: log_likelihood_bound(ConvVAE(TINY), ZEROS, 0)),
        ("steps=1 must be at least 2", lambda: latent_walk(torch.zeros(2), torch.ones(2), 1)),
        ("log_var has shape", lambda: DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 2))),
        ("weight must have shape", lambda: LinearVAE(torch.zeros(3))),
        ("bias has shape .* it needs 2 entries, or one", lambda: LinearVAE(torch.zeros(2, 1), torch.zeros(3))),
        ("noise_variance=0 must be positive", lambda: LinearVAE(torch.zeros(2, 1), 0.0, 0)),
        (r"x must have shape \(batch, 2\)", lambda: LINE.log_evidence(torch.zeros(4, 3))),
        (r"they must be \(4, 1\) and \(1, 1\)", lambda: LINE.elbo(torch.zeros(4, 2), torch.zeros(1, 1), torch.eye(1))),
        ("size=30 cannot be halved 2 times", lambda: KLAutoencoderConfig(30)),
        ("all must be at least 1", lambda: KLAutoencoderConfig(blocks=0)),
        ("takes 3 channels, and a height and width that are multiples of 2",
         lambda: KLAutoencoder(SMALL).encode(torch.zeros(1, 3, 9, 8))),
        ("takes 3 channels", lambda: KLAutoencoder(SMALL).encode(torch.zeros(1, 1, 8, 8))),
        (r"z has shape .* it needs \(batch, 4, height, width\)",
         lambda: KLAutoencoder(SMALL).decode(torch.zeros(1, 3, 4, 4))),
        ("components=3 must be at least 1, and needs 3 points for each", lambda: fit_mixture(torch.zeros(8, 2), 3)),
        ("z holds values that are not finite", lambda: fit_mixture(torch.full((8, 2), torch.nan), 1)),
        ("embedding is missing, but this block needs", lambda: ResidualBlock(32, 32, 8)(torch.zeros(1, 32, 2, 2))),
        ("embedding is given, but this block was made with time_dim=None",
         lambda: ResidualBlock(32, 32, None)(torch.zeros(1, 32, 2, 2), torch.zeros(1, 8))),
        ("scale_shift=True needs an embedding", lambda: ResidualBlock(32, 32, None, scale_shift=True)),
        ("kind='short' is not shipped; use 'plane' or 'digits'", lambda: vae_digits.load("short")),
        ("n=0 must be at least 1", lambda: vae_fashion.draw(None, 0)),
        ("source='posterior' is not known; use 'prior' or 'fitted'",
         lambda: vae_fashion.draw(None, 1, source="posterior")),
    ],
)  # fmt: skip
def test_says_what_is_wrong(what, build):
    with pytest.raises(ValueError, match=what):
        build()
