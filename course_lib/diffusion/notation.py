"""The notation table: what each symbol is called in the code, and whether it is a variance or its root."""

from __future__ import annotations

from typing import NamedTuple


class Symbol(NamedTuple):
    """One row. `where` is `Owner.attribute`, `function(argument)` or `function -> result` in course_lib.diffusion."""

    symbol: str  # LaTeX
    name: str  # name in the code
    meaning: str
    kind: str  # "variance", "std", or what else it is
    shape: str
    where: str
    diffusers: str  # the name in the diffusers library
    chinese: str


# fmt: off
NOTATION = (
    Symbol("T", "T", "number of noising steps", "count", "whole number", "Schedule.T", "num_train_timesteps", "总步数"),
    Symbol("t", "t", "step; 1…T in formulas, 0…T-1 in code", "index", "(B,) long", "q_sample(t)", "timestep", "时间步"),
    Symbol("x_0", "x_start", "the clean image", "image", "(B, C, H, W)", "q_sample(x_start)", "original_samples", "原始图像"),
    Symbol("x_t", "x_t", "the image after t steps", "image", "(B, C, H, W)", "q_sample -> x_t", "noisy_samples", "加噪图像"),
    Symbol(r"\epsilon", "noise", "all the noise in x_t, N(0, I)", "std 1", "(B, C, H, W)", "q_sample(noise)", "noise", "噪声"),
    Symbol(r"\beta_t", "betas", "noise added by step t", "variance", "(T,)", "Schedule.betas", "betas", "扩散率"),
    Symbol(r"\alpha_t", "alphas", "share of variance that step t keeps", "variance", "(T,)", "Schedule.alphas", "alphas", "保留率"),
    Symbol(r"\bar\alpha_t", "alpha_bars", "share of variance kept after t steps", "variance", "(T,)", "Schedule.alpha_bars", "alphas_cumprod", "累积保留率"),
    Symbol(r"\sqrt{1-\bar\alpha_t}", "noise_std", "size of the noise in x_t", "std", "(T,)", "Schedule.noise_std", "(1 - alphas_cumprod) ** 0.5", "噪声标准差"),
    Symbol(r"\ln\frac{\bar\alpha_t}{1-\bar\alpha_t}", "log_snr", "log signal-to-noise ratio", "nats", "(T,)", "Schedule.log_snr", "–", "对数信噪比"),
    Symbol(r"\tilde\beta_t", "posterior_variance", "noise put back by one reverse step", "variance", "(T,)", "Schedule.posterior_variance", "_get_variance(t)", "后验方差"),
    Symbol(r"\sqrt{\tilde\beta_t}", "posterior_std", "its square root: what multiplies noise", "std", "(T,)", "Schedule.posterior_std", "_get_variance(t) ** 0.5", "后验标准差"),
    Symbol(r"x_{t-1}", "x_prev", "the image one reverse step later", "image", "(B, C, H, W)", "ddpm_step -> x_prev", "prev_sample", "上一步图像"),
    Symbol(r"\epsilon_\theta(x_t, t)", "prediction", "what a network answers: noise, x_start or v", "image", "(B, C, H, W)", "ddpm_step(prediction)", "model_output", "模型预测"),
    Symbol(r"\hat x_0", "predicted_x_start", "the clean image that the prediction implies", "image", "(B, C, H, W)", "bound_term(predicted_x_start)", "pred_original_sample", "预测的原图"),
    Symbol(r"v", "v", "noise and image mixed so that both ends are easy", "image", "(B, C, H, W)", "convert -> v", "v_prediction", "速度"),
    Symbol(r"\eta", "eta", "DDIM's noise as a share of the posterior's std", "factor", "number", "ddim_step(eta)", "eta", "随机性系数"),
)
# fmt: on


def notation_table() -> str:
    """The table as Markdown, as lesson 00 shows it."""
    head = (
        "| symbol | name in the code | meaning | variance or std? | shape | in diffusers | 中文 |\n"
        + "|---" * 7
        + "|\n"
    )
    rows = (
        f"| ${s.symbol}$ | `{s.name}` | {s.meaning} | {s.kind} | {s.shape} | `{s.diffusers}` | {s.chinese} |"
        for s in NOTATION
    )
    return head + "\n".join(rows)
