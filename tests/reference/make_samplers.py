"""Regenerates `samplers.json` beside it: what diffusers' schedulers answer for fixed inputs. Run it as a script.

One noise schedule (linear, T = 1000, the two libraries' default), one x_t, one prediction, one noise. Each case says
which scheduler, its settings, t and the t_prev that it really used, and holds its answer. Two habits of diffusers are
kept out, because they differ from the papers: its DDIM takes t - T//n for t_prev instead of the next entry of its own
list (here only counts are used where both agree), and its DDPM adds noise at a last step that does not start at t = 0.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import diffusers
import torch

FILE = Path(__file__).with_name("samplers.json")
T = 1000
SPACING = "trailing"
KINDS = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}


def inputs() -> dict[str, torch.Tensor]:
    """x_t, prediction and noise, (2, 3) each, and a prediction per model call of a whole run, (19, 2, 3)."""
    generator = torch.Generator().manual_seed(0)
    x_t, prediction = torch.randn((2, 2, 3), generator=generator)
    noise = torch.randn((2, 3), generator=torch.Generator().manual_seed(1))  # what `step` will draw from that seed
    predictions = torch.randn((19, 2, 3), generator=generator)
    return {"x_t": x_t, "prediction": prediction, "noise": noise, "predictions": predictions}


def ddpm_cases(x_t: torch.Tensor, prediction: torch.Tensor) -> list[dict]:
    """Both variances, clipped and not, at 10, 50 and 1000 steps: the first, a middle, the two last steps."""
    cases = []
    for steps, variance, clip in itertools.product((10, 50, 1000), ("small", "large"), (False, True)):
        scheduler = diffusers.DDPMScheduler(
            T, variance_type=f"fixed_{variance}", clip_sample=clip, timestep_spacing=SPACING
        )
        scheduler.set_timesteps(steps)
        for t, t_prev in chosen_pairs(scheduler):
            if t_prev < 0 < t and variance == "large":
                continue  # adds noise to the finished image, see above
            out = scheduler.step(prediction, t, x_t, generator=torch.Generator().manual_seed(1))
            cases.append(answer("ddpm", t, t_prev, out, steps=steps, variance=variance, clip=clip))
    return cases


def ddim_cases(x_t: torch.Tensor, prediction: torch.Tensor) -> list[dict]:
    """eta 0, 0.5 and 1, clipped (with the noise derived anew) and not, all three kinds of prediction."""
    cases = []
    for steps, eta, clip, kind in itertools.product((10, 50), (0.0, 0.5, 1.0), (False, True), KINDS):
        scheduler = diffusers.DDIMScheduler(T, clip_sample=clip, prediction_type=KINDS[kind], timestep_spacing=SPACING)
        scheduler.set_timesteps(steps)
        for t, t_prev in chosen_pairs(scheduler):
            out = scheduler.step(
                prediction, t, x_t, eta, use_clipped_model_output=clip, generator=torch.Generator().manual_seed(1)
            )
            cases.append(answer("ddim", t, t_prev, out, steps=steps, eta=eta, clip=clip, kind=kind))
    return cases


def solver_cases(x_t: torch.Tensor, predictions: torch.Tensor) -> list[dict]:
    """Whole runs of ten steps, fed one given prediction per model call; Heun makes 19 calls.

    Euler and Heun hold x̄ = x/√ᾱ; the run is stored as x.
    """
    dpm = {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
    classes = {
        "dpm_solver_pp_2m": (diffusers.DPMSolverMultistepScheduler, dpm),
        "euler": (diffusers.EulerDiscreteScheduler, {}),
        "heun": (diffusers.HeunDiscreteScheduler, {"beta_start": 1e-4, "beta_end": 0.02}),
    }
    cases = []
    for (name, (make, options)), kind in itertools.product(classes.items(), ("noise", "v")):
        scheduler = make(num_train_timesteps=T, prediction_type=KINDS[kind], timestep_spacing=SPACING, **options)
        scheduler.set_timesteps(10)
        scheduler.is_scale_input_called = True  # the prediction is given: no model reads a scaled input here
        visited = list(dict.fromkeys(int(t) for t in scheduler.timesteps))
        scaled = name != "dpm_solver_pp_2m"
        bars = [*(float(scheduler.alphas_cumprod[t]) for t in visited), 1.0]
        x = x_t / bars[0] ** 0.5 if scaled else x_t
        states, step = [], 0
        for call, t in enumerate(scheduler.timesteps):
            x = scheduler.step(predictions[call], t, x).prev_sample
            if name != "heun" or call % 2 or call == 18:  # Heun's odd calls only look ahead
                step += 1
                states.append(x * bars[step] ** 0.5 if scaled else x)
        cases.append({"sampler": name, "kind": kind, "timesteps": visited, "states": torch.stack(states).tolist()})
    return cases


def chosen_pairs(scheduler) -> list[tuple[int, int]]:
    """(t, t_prev) at the first step, a middle one and the two last."""
    ts = [*scheduler.timesteps.tolist(), -1]
    n = len(ts) - 1
    return [(ts[i], ts[i + 1]) for i in sorted({0, n // 2, n - 2, n - 1})]


def answer(sampler: str, t: int, t_prev: int, out, **settings) -> dict:
    """One case."""
    values = {"x_prev": out.prev_sample.tolist(), "x_start": out.pred_original_sample.tolist()}
    return {"sampler": sampler, "t": t, "t_prev": t_prev, **settings, **values}


def regenerate() -> dict:
    """Everything that the file holds."""
    given = inputs()
    x_t, prediction = given["x_t"], given["prediction"]
    return {
        "made_by": f"diffusers {diffusers.__version__}",
        "T": T,
        "inputs": {name: value.tolist() for name, value in given.items()},
        "steps": [*ddpm_cases(x_t, prediction), *ddim_cases(x_t, prediction)],
        "runs": solver_cases(x_t, given["predictions"]),
    }


def one_case_a_line(content: dict) -> str:
    """JSON that a diff can be read in."""

    def lines(cases: list[dict]) -> str:
        return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]"

    parts = (
        f"{json.dumps(key)}: {lines(value) if isinstance(value, list) else json.dumps(value)}"
        for key, value in content.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(one_case_a_line(regenerate()), encoding="utf-8")
