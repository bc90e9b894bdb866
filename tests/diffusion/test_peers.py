"""Other projects' implementations, at more settings than `make test` has time for (part of `make test-all`)."""

import pytest
import torch

from course_lib.diffusion import Schedule, q_sample

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("T", [50, 100, 300, 1000, 4000])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_diffusers_add_noise(name, T):
    """diffusers does not rescale betas with T, so the linear schedule gets its ends multiplied by 1000/T."""
    from diffusers import DDPMScheduler

    options = {
        "linear": {"beta_start": 1e-4 * 1000 / T, "beta_end": 0.02 * 1000 / T},
        "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    }
    theirs = DDPMScheduler(T, **options[name])
    ours = getattr(Schedule, name)(T)
    generator = torch.Generator().manual_seed(0)
    x_start, noise = torch.randn((2, 64, 3, 8, 8), generator=generator)
    t = torch.randint(0, T, (64,), generator=generator)
    assert torch.allclose(q_sample(ours, x_start, t, noise), theirs.add_noise(x_start, noise, t), atol=2e-5)
    assert (theirs.alphas_cumprod.double() / ours.alpha_bars - 1).abs().max() < 1e-4
