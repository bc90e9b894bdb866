"""One training loop for every network of the course.

It runs as it is on a CPU, a GPU, or several under `accelerate launch`; shows its progress; keeps an exponential moving
average; and can be killed at any moment: called again with the same folder, it goes on where it was, and on a CPU the
final weights are the very bits of a run that was never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib import runtime
from course_lib.training import state
from course_lib.training.draws import Draws, Order, key
from course_lib.training.ema import EMA
from course_lib.training.keeping import improvements

Loss = Callable[[nn.Module, Any, Draws], Tensor]  # (model, batch, draws) -> scalar
Batches = Callable[[Tensor], Any]  # indices -> batch: a tensor, or a tuple or dict of tensors


@dataclass(frozen=True)
class FitConfig:
    """How a network is trained. A run that is continued must have the same settings."""

    steps: int
    batch_size: int = 128  # in all processes together
    learning_rate: float | int = 2e-4
    warmup: int = 100  # steps in which the learning rate climbs from 0
    cosine: bool = True  # afterwards it falls to 0 along a cosine, or stays
    betas: tuple[float | int, float | int] = (0.9, 0.999)
    weight_decay: float | int = 0.0
    clip_norm: float | int | None = 1.0  # longest gradient
    ema: float | int | None = 0.999  # decay of the moving average, None for none
    accumulate: int = 1  # parts that a batch is computed in, to save memory
    seed: int = 0
    evaluate_every: int = 0  # steps between two evaluations, 0 for an evaluation at the end only
    save_every: float | int = 60.0  # seconds between two states written

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0 or self.warmup < 0 or self.evaluate_every < 0:
            raise ValueError("learning_rate must be positive, warmup and evaluate_every at least 0")

    def rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0: up in a straight line, then down a half cosine."""
        climb = min(1.0, (step + 1) / (self.warmup + 1))
        if not self.cosine or step < self.warmup:
            return self.learning_rate * climb
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What training gives: the network, its moving average (or None), both in eval mode, and what was measured."""

    model: nn.Module
    ema: nn.Module | None
    losses: Float[Tensor, " steps"]  # of each step, mean over the processes
    scores: dict[int, float]  # steps done -> what `evaluate` said
    seconds: float  # of training, stops not counted

    @property
    def best(self) -> nn.Module:
        """The network to use: the moving average where there is one."""
        return self.ema if self.ema is not None else self.model


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    count: int,
    config: FitConfig,
    *,
    folder: Path | str | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train `model` in place on `count` examples. `loss(model, batch, draws)` is a scalar, `batches(indices)` a batch.

    With a `folder`, the state is kept in `folder/last.safetensors`, and the weights with the lowest `evaluate(network)`
    (the moving average, where there is one, in eval mode) in `folder/best.safetensors`; a run found there is continued.
    Raises ValueError for settings that don't fit together, RunError for a stored run that is damaged or another one,
    FloatingPointError where the loss is no longer a number; the last good state stays.
    """
    return _Run(model, loss, batches, count, config, folder, evaluate, progress).go()


class _Run:
    """The parts of one call of `fit`."""

    def __init__(self, model, loss, batches, count, config, folder, evaluate, progress) -> None:
        runtime.keep_memory()
        device = runtime.device()
        # Precision is ours (runtime.autocast), so that a lesson may change it from one call to the next.
        self.accelerator = Accelerator(mixed_precision="no", cpu=device.type == "cpu")
        self.device, self.config, self.folder = self.accelerator.device, config, folder and Path(folder)
        self.loss, self.batches, self.evaluate, self.progress = loss, batches, evaluate, progress
        parts = self.accelerator.num_processes * config.accumulate
        if config.batch_size % parts:
            raise ValueError(
                f"batch_size={config.batch_size} cannot be shared by {self.accelerator.num_processes} processes in "
                f"accumulate={config.accumulate} parts; use a multiple of {parts}"
            )
        self.part = config.batch_size // parts
        self.order = Order(count, config.batch_size, config.seed)
        self.raw = model.to(self.device)
        self.ema = EMA(self.raw, config.ema) if config.ema is not None else None
        optimizer = torch.optim.AdamW(
            self.raw.parameters(),
            lr=0.0,
            betas=tuple(map(float, config.betas)),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(self.raw, optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=runtime.precision(self.device) == torch.float16)
        self.losses = torch.full((config.steps,), math.nan)
        self.scores: dict[int, float] = {}
        self.done, self.seconds = 0, 0.0

    # --- one step ---------------------------------------------------------------------------------------------------

    def step(self) -> float:
        """One update of the weights; the loss before it."""
        config, accelerator = self.config, self.accelerator
        indices, mine = self.order(self.done), torch.zeros((), device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(self.done)
        torch.manual_seed(key(config.seed, self.done, 3, accelerator.process_index))  # for dropout
        for k in range(config.accumulate):
            first = (k * accelerator.num_processes + accelerator.process_index) * self.part
            rows = slice(first, first + self.part)
            batch = send_to_device(self.batches(indices[rows]), self.device)
            draws = Draws(config.seed, self.done, config.batch_size, rows, self.device)
            last = k == config.accumulate - 1
            with runtime.autocast(self.device), _sync(accelerator, self.model, last):
                value = self.loss(self.model, batch, draws) / config.accumulate
                accelerator.backward(self.scaler.scale(value))
            mine += value.detach()
        self.scaler.unscale_(self.optimizer.optimizer)
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.raw.parameters(), config.clip_norm)
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.raw)
        return accelerator.reduce(mine, "mean").item()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> Fitted:
        config, main = self.config, self.accelerator.is_main_process
        self.resume()
        self.model.train()
        bar = tqdm(
            total=config.steps, initial=self.done, desc="training", unit="step", disable=not (self.progress and main)
        )
        began = written = time.monotonic()
        with bar, torch.random.fork_rng(enabled=True):
            while self.done < config.steps:
                value = self.step()
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the loss of step {self.done + 1} is {value}; try a smaller learning_rate (now "
                        f"{config.learning_rate}), or COURSE_PRECISION=float32"
                    )
                self.losses[self.done] = value
                self.done += 1
                bar.update()
                if self.done % 10 == 0:
                    bar.set_postfix(
                        loss=f"{self.losses[max(0, self.done - 100) : self.done].mean():.4f}", refresh=False
                    )
                now = time.monotonic()
                self.seconds, began = self.seconds + now - began, now
                finished = self.done == config.steps
                if finished or (config.evaluate_every and self.done % config.evaluate_every == 0):
                    self.score()
                if main and self.folder and (finished or now - written > config.save_every):
                    self.save()
                    written = time.monotonic()
                began = time.monotonic()
        self.accelerator.wait_for_everyone()
        self.raw.eval()
        if self.ema is not None:
            self.ema.eval()
        return Fitted(self.raw, self.ema.module if self.ema else None, self.losses, dict(self.scores), self.seconds)

    def score(self) -> None:
        """Ask `evaluate`; keep the weights if they are the best so far."""
        if self.evaluate is None:
            return
        network = self.ema.module if self.ema is not None else self.raw
        was_training = network.training
        network.eval()
        with torch.no_grad(), torch.random.fork_rng(enabled=True):
            value = float(self.evaluate(network))
        network.train(was_training)
        best = improvements([*self.scores.values(), value])[-1]
        self.scores[self.done] = value
        if best and self.folder and self.accelerator.is_main_process:
            state.write(self.folder / "best.safetensors", network.state_dict(), {"step": self.done, "score": value})

    # --- stopping and going on --------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self.config) | {"betas": list(self.config.betas), "count": self.order.count}
        settings["precision"] = str(runtime.precision(self.device)).removeprefix("torch.")
        return settings

    def save(self) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.raw.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        tensors |= state.optimizer_tensors(self.optimizer.optimizer, "optimizer.")
        facts = {
            "settings": self.facts(),
            "done": self.done,
            "seconds": self.seconds,
            "scores": self.scores,
            "scaler": self.scaler.state_dict(),
        }
        state.write(self.folder / "last.safetensors", tensors | {"losses": self.losses}, facts)

    def resume(self) -> None:
        path = self.folder and self.folder / "last.safetensors"
        if not path or not path.exists():
            return
        tensors, facts = state.read(path)
        if facts.get("settings") != self.facts():
            old, new = facts.get("settings", {}), self.facts()
            changed = [f"{name}: {old.get(name)} there, {new[name]} now" for name in new if old.get(name) != new[name]]
            raise state.RunError(
                f"{path} holds a run with other settings ({'; '.join(changed)}); use another folder for this run"
            )
        state.copy_into(self.raw, tensors, "model.", path)
        if self.ema is not None:
            state.copy_into(self.ema, tensors, "ema.", path)
        state.restore_optimizer(self.optimizer.optimizer, tensors, "optimizer.")
        self.scaler.load_state_dict(facts["scaler"])
        self.losses, self.done, self.seconds = tensors["losses"], facts["done"], facts["seconds"]
        self.scores = {int(step): value for step, value in facts["scores"].items()}


def _sync(accelerator: Accelerator, model: nn.Module, last: bool) -> Any:
    """Exchange gradients between processes with the last part of a batch only."""
    return torch.enable_grad() if last else accelerator.no_sync(model)
