"""Plant one mistake at a time in a copy of the course; the tests must see every one (`make test-breaks`).

The copy without a mistake must pass first, or nothing would be proved. Each mistake is then looked for with the tests
that should know it best, which are part of `make test`; if those pass, with all of `make test`. Words on the command
line choose breaks by name: `python tools/plant_breaks.py cosine snr`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from course_lib import runtime

ROOT = Path(__file__).resolve().parent.parent


class Break(NamedTuple):
    """Replace `right` (which stands in `file` exactly once) by `wrong`; `tests` should notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str = "tests/diffusion tests/equations"


SCHEDULE, FORWARD = "course_lib/diffusion/schedule.py", "course_lib/diffusion/forward.py"
FOUNDATIONS = "course_lib/foundations"
EXERCISES = "course_lib/lesson/exercises"
# fmt: off
BREAKS = (
    Break("alphas without minus", SCHEDULE, "return 1 - self.betas", "return 1 - self.betas**2"),
    Break("alpha_bars shifted", SCHEDULE, "self.alpha_bars[:-1]])", "self.alpha_bars[1:]])"),
    Break("noise variance as std", SCHEDULE, "return (1 - self.alpha_bars).sqrt()", "return 1 - self.alpha_bars"),
    Break("image weight without root", SCHEDULE, "return self.alpha_bars.sqrt()", "return self.alpha_bars"),
    Break("log-SNR sign", SCHEDULE, "torch.log(alpha_bars) - torch", "torch.log(alpha_bars) + torch"),
    Break("posterior variance index", SCHEDULE, "self.betas * (1 - self.alpha_bars_prev)", "self.betas * self.alphas"),
    Break("posterior std is a variance", SCHEDULE, "self.posterior_variance.sqrt()", "self.posterior_variance"),
    Break("posterior mean without root", SCHEDULE, "self.alphas.sqrt() * (1", "self.alphas * (1"),
    Break("linear not rescaled", SCHEDULE, "factor = 1000 / _checked_length(T) if", "factor = 1.0 if"),
    Break("linear reversed", SCHEDULE, "linspace(beta_start, beta_end", "linspace(beta_end, beta_start"),
    Break("linear accepts beta of 1", SCHEDULE, "if last >= 1:", "if last > 1:", "tests/messages"),
    Break("cosine without square", SCHEDULE, "* math.pi / 2) ** 2", "* math.pi / 2) ** 1"),
    Break("cosine offset", SCHEDULE, "def cosine_betas(T: int, s: float = 0.008)", "def cosine_betas(T: int, s: float = 0.08)"),
    Break("cosine cap", SCHEDULE, "LARGEST_BETA = 0.999 ", "LARGEST_BETA = 0.9999 "),
    Break("cosine in float32", SCHEDULE, "torch.arange(T + 1, dtype=torch.float64)", "torch.arange(T + 1.0)"),
    Break("scaled linear without root", SCHEDULE, "linspace(beta_start**0.5,", "linspace(beta_start,"),
    Break("negative t accepted", SCHEDULE, "(t.min() < 0 or t.max()", "(t.max()", "tests/messages"),
    Break("beta of 0 accepted", SCHEDULE, "(betas > 0) &", "(betas >= 0) &", "tests/messages"),
    Break("end of noise not checked", SCHEDULE, "NOT_NOISE = 0.01 ", "NOT_NOISE = 0.2 "),
    Break("step: variance as std", FORWARD, "torch.sqrt(beta) * noise", "beta * noise"),
    Break("step: image not shrunk", FORWARD, "return torch.sqrt(1 - beta) * x_prev", "return x_prev"),
    Break("one shot: swapped", FORWARD, "signal * x_start + noise_std * noise", "noise_std * x_start + signal * noise"),
    Break("one shot: noise subtracted", FORWARD, "x_start + noise_std * noise", "x_start - noise_std * noise"),
    Break("chain starts late", FORWARD, "for t in range(schedule.T):", "for t in range(1, schedule.T):"),
    Break("unrolled weights shifted", FORWARD, "alphas[1:].flip(0)", "alphas[:-1].flip(0)"),
    Break("path: variance as std", FORWARD, "torch.sqrt(beta).expand_as", "beta.expand_as"),
    Break("mean: variance as std", FORWARD, "gather(1 - schedule.alpha_bars, t", "gather(schedule.noise_std, t"),
    Break("mixture widened wrongly", "course_lib/foundations/mixture.py", "alpha_bar * self.variances +", "self.variances +", "tests/foundations tests/equations"),
    Break("pixels divided by 128", "course_lib/pixels.py", "/ 127.5 - 1", "/ 128 - 1", "tests/equations tests/data"),
    Break("pixels cut, not rounded", "course_lib/pixels.py", ".round().to(torch.uint8)", ".to(torch.uint8)", "tests/equations tests/show"),
    Break("images lost from a sheet", "course_lib/show/tiles.py", "math.ceil(math.sqrt(n))", "round(math.sqrt(n))", "tests/show tests/lesson"),
    Break("images stretched", "course_lib/show/tiles.py", "to_uint8(images.detach().cpu())", "to_uint8(images.detach().cpu() / images.abs().max())", "tests/show"),
    Break("checker too lenient", "course_lib/lesson/checking.py", "rtol=task.rtol, atol=task.atol", "rtol=1.0, atol=1.0", "tests/lesson"),
    Break("wrong answers kept", "course_lib/lesson/answering.py", 'attempt if verdict.status == "passed" else', "attempt or", "tests/lesson"),
    Break("left and right swapped", "course_lib/data/shapes_oracle.py", '"left": (u <= -CENTER_BORDER)', '"left": (u >= CENTER_BORDER)', "tests/data"),
    Break("padding with grey", "course_lib/data/images.py", "torch.uint8 else -1)", "torch.uint8 else 0)", "tests/data"),
    Break("damaged archive accepted", "course_lib/data/archives.py", "if found.hexdigest() != expected:", "if found.hexdigest() == expected + expected:", "tests/data"),
    Break("reader sees no noise", "course_lib/recipes/recognition_curve.py", "(1 - alpha_bar) ** 0.5 * noise", "0 * noise", "tests/recipes"),
    Break("bayes: not divided by the evidence", f"{FOUNDATIONS}/bayes.py", "return joint / evidence, evidence", "return joint, evidence", "tests/foundations/test_bayes.py"),
    Break("bayes: evidence over the wrong axis", f"{FOUNDATIONS}/bayes.py", "evidence = joint.sum(dim=0)", "evidence = joint.sum(dim=1)", "tests/foundations/test_bayes.py"),
    Break("updates: probabilities, not logarithms", f"{FOUNDATIONS}/bayes.py", "torch.log(prior)[None], per_observation", "prior[None], per_observation", "tests/foundations/test_bayes.py"),
    Break("gaussian posterior: prior ignored", f"{FOUNDATIONS}/bayes.py", "precision = 1 / prior_var + len", "precision = len", "tests/foundations/test_bayes.py"),
    Break("gaussian posterior: std for variance", f"{FOUNDATIONS}/bayes.py", "return mean, 1 / precision", "return mean, 1 / precision.sqrt()", "tests/foundations/test_bayes.py"),
    Break("chain rule: condition left out", f"{FOUNDATIONS}/bayes.py", "conditional(table, range(k)) for", "conditional(table, ()) for", "tests/foundations/test_bayes.py"),
    Break("zero evidence accepted", f"{FOUNDATIONS}/bayes.py", "if not evidence.all():", "if not evidence.any():", "tests/messages"),
    Break("markov: C given A", f"{FOUNDATIONS}/markov.py", "conditional(joint.sum(dim=0), given=(0,))[None]", "conditional(joint.sum(dim=1), given=(0,))[:, None]", "tests/foundations/test_markov.py"),
    Break("transient states kept", f"{FOUNDATIONS}/markov.py", "transient[group] = False", "transient[group] = True", "tests/foundations/test_markov.py"),
    Break("states reached in one step only", f"{FOUNDATIONS}/markov.py", "range(len(P).bit_length())", "range(0)", "tests/foundations/test_markov.py"),
    Break("columns for rows in stationary", f"{FOUNDATIONS}/markov.py", "equations = flow.T.clone()", "equations = flow.clone()", "tests/foundations/test_markov.py"),
    Break("largest eigenvalue as decay", f"{FOUNDATIONS}/markov.py", "float(moduli[1])", "float(moduli[0])", "tests/foundations/test_markov.py"),
    Break("several stationary distributions accepted", f"{FOUNDATIONS}/markov.py", "if len(groups) > 1:", "if len(groups) > 2:", "tests/foundations/test_markov.py"),
    Break("bits: correlation as a probability", f"{FOUNDATIONS}/bits.py", "same = (1 + _correlation(correlation, \"correlation\")) / 2", "same = _correlation(correlation, \"correlation\")", "tests/foundations/test_bits.py"),
    Break("bits: prior forgotten", f"{FOUNDATIONS}/bits.py", "log_joint = prior.log() + log_likelihood", "log_joint = 0 * prior + log_likelihood", "tests/foundations/test_bits.py"),
    Break("bits: flip turned round", f"{FOUNDATIONS}/bits.py", "one = torch.where(x_t, 1 - flip, flip)", "one = torch.where(x_t, flip, 1 - flip)", "tests/foundations/test_bits.py"),
    Break("bits: the step before is this one", f"{FOUNDATIONS}/bits.py", "before = kept[t - 1] if t > 0 else 1.0", "before = kept[t]", "tests/foundations/test_bits.py"),
    Break("bits: flips not doubled", f"{FOUNDATIONS}/bits.py", "torch.cumprod(1 - 2 * _flips", "torch.cumprod(1 - _flips", "tests/foundations/test_bits.py"),
    Break("exercise 1.2: no observation not checked", "course_lib/lesson/exercises/lesson_01.py", "properties=(_no_observation_leaves_the_prior,),", "", "tests/lesson"),
    Break("exercise 1.4: walked too short", "course_lib/lesson/exercises/chains.py", "for _ in range(12):", "for _ in range(1):", "tests/lesson"),
    Break("exercise 1.5: flip turned round", "course_lib/lesson/exercises/chains.py", "(1 - f if before == now else f)", "(f if before == now else 1 - f)", "tests/lesson"),
    Break("exercise 2.1: absolute values pass for even orders", "course_lib/lesson/exercises/lesson_02.py", "int(torch.randint(2, 6, (), generator=generator))", "2 * int(torch.randint(1, 3, (), generator=generator))", "tests/lesson"),
    Break("exercise 2.2: half lost", "course_lib/lesson/exercises/lesson_02.py", "torch.softmax(-(p * x**2 + q * x), dim=0)", "torch.softmax(-(p * x**2 + q * x) / 2, dim=0)", "tests/lesson"),
    Break("exercise 2.3: always independent", "course_lib/lesson/exercises/gaussians.py", "correlation * (var_x * var_y).sqrt()", "0 * correlation * (var_x * var_y).sqrt()", "tests/lesson"),
    Break("exercise 2.4: covariance not inverted", "course_lib/lesson/exercises/gaussians.py", "left = torch.linalg.inv(precision[rest][:, rest])", "left = precision[rest][:, rest]", "tests/lesson"),
    Break("density: std for variance", f"{FOUNDATIONS}/gaussian.py", "torch.log(2 * math.pi * variance) + (x - mean) ** 2 / variance", "torch.log(2 * math.pi * variance) + (x - mean) ** 2 / variance**2", "tests/foundations/test_gaussian.py"),
    Break("square: factor 2 lost", f"{FOUNDATIONS}/gaussian.py", "return -b / (2 * a), 1 / (2 * a)", "return -b / (2 * a), 1 / a", "tests/foundations/test_gaussian.py"),
    Break("sum: scale not squared", f"{FOUNDATIONS}/gaussian.py", "variance = a**2 * var_x", "variance = a * var_x", "tests/foundations/test_gaussian.py"),
    Break("sum: covariance ignored", f"{FOUNDATIONS}/gaussian.py", " + 2 * a * b * covariance", "", "tests/foundations/test_gaussian.py"),
    Break("product: variances added", f"{FOUNDATIONS}/gaussian.py", "mean_1, mean_2, var_1 + var_2)", "mean_1, mean_2, variance)", "tests/foundations/test_gaussian.py"),
    Break("conditional: sign", f"{FOUNDATIONS}/multivariate.py", "left = covariance[rest][:, rest] - gain.T", "left = covariance[rest][:, rest] + gain.T", "tests/foundations/test_multivariate.py"),
    Break("moments: absolute values", f"{FOUNDATIONS}/moments.py", "@ (x - c) ** k", "@ (x - c).abs() ** k", "tests/foundations/test_moments.py"),
    Break("centroid not divided", f"{FOUNDATIONS}/moments.py", "centroid = m1 / m0", "centroid = m1", "tests/foundations/test_moments.py"),
    Break("kl: reversed", f"{FOUNDATIONS}/divergence.py", "(torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)", "(torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1)", "tests/foundations/test_divergence.py"),
    Break("kl: variance of p in the denominator", f"{FOUNDATIONS}/divergence.py", "(mean_p - mean_q) ** 2) / var_q - 1)", "(mean_p - mean_q) ** 2) / var_p - 1)", "tests/foundations/test_divergence.py"),
    Break("kl: logarithms swapped", f"{FOUNDATIONS}/divergence.py", "torch.log(var_q) - torch.log(var_p)", "torch.log(var_p) - torch.log(var_q)", "tests/foundations/test_divergence.py"),
    Break("kl: point masses", f"{FOUNDATIONS}/divergence.py", "torch.where(same_point, 0.0, math.inf)", "torch.where(same_point, math.inf, 0.0)", "tests/foundations/test_divergence.py"),
    Break("kl: mean over the axis", f"{FOUNDATIONS}/divergence.py", "return kl.sum(-1)", "return kl.mean(-1)", "tests/foundations/test_divergence.py"),
    Break("kl: tilted flats", f"{FOUNDATIONS}/divergence.py", "return infinite  # two flats of different", "pass  # two flats of different", "tests/foundations/test_divergence.py"),
    Break("kl: parallel flats", f"{FOUNDATIONS}/divergence.py", "return infinite  # two parallel", "pass  # two parallel", "tests/foundations/test_divergence.py"),
    Break("kl: half a determinant", f"{FOUNDATIONS}/divergence.py", "log_det = 2 * torch", "log_det = torch", "tests/foundations/test_divergence.py"),
    Break("js: against the other", f"{FOUNDATIONS}/divergence.py", "middle = (p + q) / 2", "middle = q", "tests/foundations/test_divergence.py"),
    Break("wasserstein: not weighted by distance", f"{FOUNDATIONS}/divergence.py", "above[:-1].abs() * places.diff()", "above[:-1].abs()", "tests/foundations/test_divergence.py"),
    Break("forward fit: reverse's entropy", f"{FOUNDATIONS}/fitting.py", "return -entropy - expect_normal", "return entropy - expect_normal", "tests/foundations/test_fitting.py"),
    Break("likelihood: n - 1", f"{FOUNDATIONS}/fitting.py", "((samples - mean) ** 2).mean()", "samples.var()", "tests/foundations/test_fitting.py"),
    Break("score gradient of std", f"{FOUNDATIONS}/gradients.py", "(noise**2 - 1) / std", "noise**2 / std", "tests/foundations/test_gradients.py"),
    Break("reparameterised: noise forgotten", f"{FOUNDATIONS}/gradients.py", "slope * noise], dim=1", "slope], dim=1", "tests/foundations/test_gradients.py"),
    Break("descent: old coordinates", f"{FOUNDATIONS}/coordinate_descent.py", "x[i] = problem.best_coordinate(x, i)", "old = x if i == 0 else old; x = x.clone(); x[i] = problem.best_coordinate(old, i)", "tests/foundations/test_coordinate_descent.py"),
    Break("soft threshold: hard", f"{FOUNDATIONS}/coordinate_descent.py", "value.sign() * (value.abs() - threshold).clamp(min=0)", "value * (value.abs() > threshold)", "tests/foundations/test_coordinate_descent.py"),
    Break("quadratic step: own term kept", f"{FOUNDATIONS}/coordinate_descent.py", "others = A[i] @ x - A[i, i] * x[i]", "others = A[i] @ x", "tests/foundations/test_coordinate_descent.py"),
    Break("sweep: old coordinates", f"{FOUNDATIONS}/coordinate_descent.py", "x[i] = quadratic_step(A, b, x, i)", "old = x.clone() if i == 0 else old; x[i] = quadratic_step(A, b, old, i)", "tests/foundations/test_coordinate_descent.py"),
    Break("lasso residual: zeros not spared", f"{FOUNDATIONS}/coordinate_descent.py", "(gradient.abs() - penalty).clamp(min=0)", "gradient.abs()", "tests/equations/test_04.py"),
    Break("k-means: median", f"{FOUNDATIONS}/clustering.py", "points[assignment == k].mean(dim=0)", "points[assignment == k].median(dim=0).values", "tests/foundations/test_clustering.py"),
    Break("exercise 4.1: route bent", "course_lib/lesson/exercises/lesson_04.py", "return (low - high) / (2 * (low", "return (low - high) / (low - 2 * middle + (low", "tests/lesson/test_exercises.py"),
    Break("exercise 4.3: single numbers not asked for", "course_lib/lesson/exercises/sparsity.py", "if found is not None and all(", "if found is None or all(", "tests/lesson/test_exercises.py"),
    Break("exercise 4.4: never all zero", "course_lib/lesson/exercises/sparsity.py", "down = penalty if value <= 0 else -penalty", "down = penalty if value < 0 else -penalty", "tests/lesson/test_exercises.py"),
    Break("lasso: own part counted twice", f"{FOUNDATIONS}/coordinate_descent.py", " + column * w[i]", "", "tests/foundations/test_coordinate_descent.py"),
    Break("kl exercise: independent route in bits", f"{EXERCISES}/divergences.py", "math.fsum(extra) * math.log(2)", "math.fsum(extra)", "tests/lesson"),
    Break("kl exercise: an epsilon passes", f"{EXERCISES}/divergences.py", "    if found == math.inf:", "    if found > 1:", "tests/lesson"),
    Break("kl exercise: NaN passes", f"{EXERCISES}/divergences.py", "if math.isnan(found):\n            return (", "if False:\n            return (", "tests/lesson"),
    Break("draw exercise: gradients not looked at", f"{EXERCISES}/lesson_03.py", "properties=(_gradients_get_through, ", "properties=(", "tests/lesson"),
    Break("forward fit: means' spread forgotten", f"{FOUNDATIONS}/fitting.py", "(data.variances + (data.means - mean) ** 2)", "data.variances", "tests/foundations tests/equations"),
    Break("draw: variance as std", f"{FOUNDATIONS}/gradients.py", "std = torch.exp(0.5 * log_var)", "std = torch.exp(log_var)", "tests/foundations tests/equations"),
)
# fmt: on


def copy_of_the_course(target: Path) -> None:
    """What git tracks, and what it does not ignore, with its time stamps."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(command, cwd=ROOT, text=True).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def passes(copy: Path, *command: str) -> bool:
    """Does this command succeed in the copy, with the copy's library in front of the installed one?"""
    env = {**os.environ, "PYTHONPATH": str(copy), "COURSE_DATA": str(runtime.data_root()), "PYTEST_ADDOPTS": "-x"}
    env.update(PYTHONDONTWRITEBYTECODE="1")  # two changes within a second must not meet in a cached file
    return subprocess.run(command, cwd=copy, env=env, capture_output=True).returncode == 0


def main(words: list[str]) -> int:
    chosen = [b for b in BREAKS if not words or any(word.lower() in b.name.lower() for word in words)]
    whole = ["make", "test", f"VENV={os.environ.get('VENV') or Path(sys.prefix)}"]
    hook = "--jaxtyping-packages=course_lib,beartype.beartype"
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "course"
        copy_of_the_course(copy)
        for path in sorted({path for b in chosen for path in b.tests.split()}):
            if not passes(copy, sys.executable, "-m", "pytest", *([] if path == "tests/messages" else [hook]), path):
                sys.exit(f"{path} fails without any mistake planted: mend that first")
        for b in chosen:
            file = copy / b.file
            text = file.read_text(encoding="utf-8")
            if text.count(b.right) != 1:
                sys.exit(f"{b.name}: {b.right!r} stands {text.count(b.right)} times in {b.file}, not once")
            file.write_text(text.replace(b.right, b.wrong), encoding="utf-8")
            flags = [] if b.tests == "tests/messages" else [hook]
            seen = not passes(copy, sys.executable, "-m", "pytest", *flags, *b.tests.split()) or not passes(
                copy, *whole
            )
            file.write_text(text, encoding="utf-8")
            print(f"{'seen  ' if seen else 'MISSED'} {b.name}", flush=True)
            missed += [] if seen else [b.name]
    print(f"{len(chosen) - len(missed)} passed, {len(missed)} failed")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
