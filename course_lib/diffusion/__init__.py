"""Diffusion, independent of any network: noise schedules and the forward process.

`course_lib.diffusion.notation` holds the table of symbols and names; every name in it exists here.
"""

from course_lib.diffusion.forward import path_log_prob, q_chain, q_mean_variance, q_sample, q_step, unrolled_weights
from course_lib.diffusion.notation import NOTATION, notation_table
from course_lib.diffusion.schedule import Schedule, cosine_betas, gather, log_snr

__all__ = [
    "NOTATION",
    "Schedule",
    "cosine_betas",
    "gather",
    "log_snr",
    "notation_table",
    "path_log_prob",
    "q_chain",
    "q_mean_variance",
    "q_sample",
    "q_step",
    "unrolled_weights",
]
