"""Training: one loop with exact resume, a moving average, and what networks are trained on."""

from course_lib.training.draws import Draws, Order, key
from course_lib.training.ema import EMA, ema_decay
from course_lib.training.fit import FitConfig, Fitted, fit
from course_lib.training.keeping import improvements
from course_lib.training.objectives import DiffusionObjective, GANObjective, VAEObjective, training_step
from course_lib.training.state import RunError

__all__ = [
    "EMA",
    "DiffusionObjective",
    "Draws",
    "FitConfig",
    "Fitted",
    "GANObjective",
    "Order",
    "RunError",
    "VAEObjective",
    "ema_decay",
    "fit",
    "improvements",
    "key",
    "training_step",
]
