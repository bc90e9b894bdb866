"""Building blocks of the networks: embeddings of t, residual blocks, attention, ways to halve and double."""

from course_lib.nn.attention import SelfAttention2d
from course_lib.nn.residual import ResidualBlock, normalisation, zeroed
from course_lib.nn.resampling import DOWN, UP, Downsample, Resize, Upsample
from course_lib.nn.timestep import (
    SinusoidalTable,
    TimeMLP,
    TimestepBlock,
    TimestepSequential,
    sinusoidal_table,
    timestep_embedding,
    unsqueeze_to,
)

__all__ = [
    "DOWN",
    "UP",
    "Downsample",
    "ResidualBlock",
    "Resize",
    "SelfAttention2d",
    "SinusoidalTable",
    "TimeMLP",
    "TimestepBlock",
    "TimestepSequential",
    "Upsample",
    "normalisation",
    "sinusoidal_table",
    "timestep_embedding",
    "unsqueeze_to",
    "zeroed",
]
