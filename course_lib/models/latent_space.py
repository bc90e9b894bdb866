"""Pictures as small maps of latents, which a diffusion model works on in place of pixels.

    space.encode(images)      # (n, 3, 32, 32) in [-1, 1] to (n, 4, 8, 8) with standard deviation 1
    space.decode(latents)     # and back

Rombach, Blattmann, Lorenz, Esser, Ommer 2022, arXiv:2112.10752.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.models.kl_autoencoder import KLAutoencoder
from course_lib.nn.frozen import Freezable


class LatentSpace(Freezable):
    """A frozen autoencoder whose latents are multiplied by `scale`, so that their standard deviation is 1.

    Noise schedules are made for data of that size: with larger latents the same noise hides less (Rombach et al. 2022,
    appendix G). Stable Diffusion's scale is .18215. Raises ValueError for a scale that is not positive.
    """

    def __init__(self, autoencoder: KLAutoencoder, scale: float | int = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale={scale} must be positive: 1 over the standard deviation of the latents")
        self.autoencoder = autoencoder
        self.register_buffer("scale", torch.tensor(float(scale), device="cpu"))  # a number even under `device("meta")`
        self.freeze()

    @classmethod
    @torch.no_grad()
    def fitted(cls, autoencoder: KLAutoencoder, images: Float[Tensor, "n channel height width"]) -> LatentSpace:
        """The scale measured: 1 over the standard deviation of all numbers in the latents of these pictures."""
        device = next(autoencoder.parameters()).device
        generator = torch.Generator(device).manual_seed(0)
        parts = [autoencoder.encode(part.to(device)).sample(generator=generator) for part in images.split(250)]
        return cls(autoencoder, 1 / torch.cat(parts).double().std().item())

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of pictures of the configured size."""
        return self.autoencoder.latent_shape

    def encode(
        self, images: Float[Tensor, "n channel height width"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "n latent tall wide"]:
        """Scaled latents of pictures in [-1, 1]: their means, or draws from q(z|x) where a generator is given."""
        posterior = self.autoencoder.encode(images)
        return self.scale * (posterior.mode if generator is None else posterior.sample(generator=generator))

    def decode(self, latents: Float[Tensor, "n latent tall wide"]) -> Float[Tensor, "n channel height width"]:
        """Pictures of scaled latents; a sampler's may leave [-1, 1] a little."""
        return self.autoencoder.decode(latents / self.scale)
