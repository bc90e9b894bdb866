"""Diffusion, independent of any network: schedules, the forward process, the bound and its losses, and samplers.

Read in this order: `schedule`, `forward`, `reverse`, `prediction`, `losses`, `bound`, `plain` (all of sampling in one
loop), `steps`, `samplers`, `editing`; `exact` holds perfect denoisers to try them with. `flow` and `distillation` lead
on from there (lesson 20). `notation` holds the table of symbols and names; every name exists.
"""

from course_lib.diffusion.bound import Bound, bits_per_dim, bound_term, gaussian_bound, prior_kl
from course_lib.diffusion.distillation import distillation_loss, one_step_target, two_steps
from course_lib.diffusion.editing import img2img, inpaint, invert, slerp
from course_lib.diffusion.exact import ExactDenoiser, FiniteDenoiser, GaussianDenoiser, MixtureDenoiser
from course_lib.diffusion.flow import (
    ExactVelocity,
    FlowState,
    flow_alpha_bar,
    flow_convert,
    flow_loss,
    flow_ode,
    flow_path,
    straightness,
)
from course_lib.diffusion.forward import path_log_prob, q_chain, q_mean_variance, q_sample, q_step, unrolled_weights
from course_lib.diffusion.losses import bound_weights, diffusion_loss, min_snr_weights, optimal_loss, target
from course_lib.diffusion.notation import NOTATION, notation_table
from course_lib.diffusion.plain import ancestral, true_times
from course_lib.diffusion.prediction import convert, x_start_and_noise
from course_lib.diffusion.randomness import randn
from course_lib.diffusion.reverse import posterior, posterior_mean_from_noise, reverse_variance
from course_lib.diffusion.samplers import State, ddim, ddpm, dpm_solver_pp_2m, euler, heun, sample
from course_lib.diffusion.schedule import Schedule, cosine_betas, gather, log_snr
from course_lib.diffusion.spacing import timesteps
from course_lib.diffusion.steps import ddim_step, ddpm_step, dpm_solver_pp_2m_step, euler_step, heun_step

__all__ = [
    "NOTATION",
    "Bound",
    "ExactDenoiser",
    "ExactVelocity",
    "FiniteDenoiser",
    "FlowState",
    "GaussianDenoiser",
    "MixtureDenoiser",
    "Schedule",
    "State",
    "ancestral",
    "bits_per_dim",
    "bound_term",
    "bound_weights",
    "convert",
    "cosine_betas",
    "ddim",
    "ddim_step",
    "ddpm",
    "ddpm_step",
    "diffusion_loss",
    "distillation_loss",
    "dpm_solver_pp_2m",
    "dpm_solver_pp_2m_step",
    "euler",
    "euler_step",
    "flow_alpha_bar",
    "flow_convert",
    "flow_loss",
    "flow_ode",
    "flow_path",
    "gather",
    "gaussian_bound",
    "heun",
    "heun_step",
    "img2img",
    "inpaint",
    "invert",
    "log_snr",
    "min_snr_weights",
    "notation_table",
    "one_step_target",
    "optimal_loss",
    "path_log_prob",
    "posterior",
    "posterior_mean_from_noise",
    "prior_kl",
    "q_chain",
    "q_mean_variance",
    "q_sample",
    "q_step",
    "randn",
    "reverse_variance",
    "sample",
    "slerp",
    "straightness",
    "target",
    "timesteps",
    "true_times",
    "two_steps",
    "unrolled_weights",
    "x_start_and_noise",
]
