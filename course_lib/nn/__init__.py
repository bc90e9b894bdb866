"""Building blocks of the networks: embeddings of t, residual blocks, attention, ways to halve and double."""

from course_lib.nn.attention import SelfAttention2d, attention
from course_lib.nn.frozen import Freezable
from course_lib.nn.geometry import (
    Layer,
    conv_multiplications,
    conv_output_size,
    receptive_field,
    transposed_output_size,
)
from course_lib.nn.resampling import DOWN, UP, Downsample, Resize, Upsample, stamp
from course_lib.nn.residual import ResidualBlock, group_norm, modulate, normalisation, zeroed
from course_lib.nn.summary import Count, count_parameters, summary
from course_lib.nn.timestep import (
    SinusoidalTable,
    TimeMLP,
    TimestepBlock,
    TimestepSequential,
    sinusoidal_table,
    timestep_embedding,
    unsqueeze_to,
)
from course_lib.nn.transformer import TransformerBlock, at_end, patches, visible

__all__ = [
    "DOWN",
    "UP",
    "Count",
    "Downsample",
    "Freezable",
    "Layer",
    "ResidualBlock",
    "Resize",
    "SelfAttention2d",
    "SinusoidalTable",
    "TimeMLP",
    "TimestepBlock",
    "TimestepSequential",
    "TransformerBlock",
    "Upsample",
    "at_end",
    "attention",
    "conv_multiplications",
    "conv_output_size",
    "count_parameters",
    "group_norm",
    "modulate",
    "normalisation",
    "patches",
    "receptive_field",
    "sinusoidal_table",
    "stamp",
    "summary",
    "timestep_embedding",
    "transposed_output_size",
    "unsqueeze_to",
    "visible",
    "zeroed",
]
