"""The training loop: what it computes, and that being stopped leaves no trace."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from course_lib.diffusion import Schedule
from course_lib.training import EMA, DiffusionObjective, Draws, FitConfig, Order, RunError, ema_decay, fit, key

ROOT = Path(__file__).resolve().parents[2]
DATA = torch.linspace(-1, 1, 40).repeat(3, 1).T.contiguous()  # 40 "pictures" of three equal values


class Tiny(nn.Module):
    """A denoiser with dropout, so that a wrong random state shows."""

    prediction = "noise"

    def __init__(self, width=16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Dropout(0.2), nn.Linear(width, 3))

    def forward(self, x_t, t, cond=None):
        return self.net(torch.cat([x_t, t[:, None].float() / 100], dim=1))


def tiny(width=16, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny(width)


OBJECTIVE = DiffusionObjective(Schedule.linear(100))
CONFIG = FitConfig(steps=30, batch_size=8, learning_rate=1e-2, warmup=5, ema=0.9, save_every=0.0)


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def train(config=CONFIG, **options):
    model = options.pop("model", None) or tiny()
    return fit(model, options.pop("loss", OBJECTIVE), DATA.__getitem__, len(DATA), config, progress=False, **options)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_keeps_count():
    run = train(FitConfig(steps=300, batch_size=20, learning_rate=1e-2, warmup=5))
    assert run.losses.shape == (300,)
    assert torch.isfinite(run.losses).all()
    assert run.losses[-50:].mean() < 0.8 * run.losses[:20].mean()
    assert run.best is run.ema
    assert not run.model.training
    assert run.seconds > 0


def test_written_out():
    """Four steps with everything by hand: order, draws, learning rate, clipping, AdamW, the average."""
    config = FitConfig(steps=4, batch_size=8, learning_rate=1e-2, warmup=2, ema=0.5, weight_decay=0.1, clip_norm=0.3)
    model = tiny()
    model.net[2].p = 0.0
    found = train(config, model=tiny_without_dropout())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1)
    average, losses = None, []
    for step in range(4):
        lr = [1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2 * 0.5][step]
        order = torch.randperm(40, generator=torch.Generator().manual_seed(key(0, 0, 2)))[8 * step : 8 * step + 8]
        generator = torch.Generator().manual_seed(key(0, step, 1))
        t = torch.randint(100, (8,), generator=generator)
        noise = torch.randn(8, 3, generator=generator)
        bar = OBJECTIVE.schedule.alpha_bars[t, None].float()
        loss = (model(bar.sqrt() * DATA[order] + (1 - bar).sqrt() * noise, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        length = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad *= min(1.0, 0.3 / (length.item() + 1e-6))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        losses.append(loss.item())
        now = [p.detach().clone() for p in model.parameters()]
        keep = min(0.5, (1 + step) / (10 + step))
        average = now if average is None else [keep * a + (1 - keep) * b for a, b in zip(average, now, strict=True)]
    assert found.losses.tolist() == pytest.approx(losses, rel=1e-5)
    for mine, theirs in ((model.parameters(), found.model), (average, found.ema)):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(mine, theirs.parameters(), strict=True))


def tiny_without_dropout():
    model = tiny()
    model.net[2].p = 0.0
    return model


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


def test_twice_the_same_another_seed_another_run():
    assert same(train().ema, train().ema)
    assert not same(train().ema, train(FitConfig(**{**vars(CONFIG), "seed": 1})).ema)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stops", [(1,), (7, 8), (29,), (10, 20, 25)])
def test_stopped_and_gone_on(tmp_path, stops):
    whole = train()
    for stop in (*stops, None):
        start = read_done(tmp_path)
        seen = [start]

        def loss(model, batch, draws, stop=stop, seen=seen):
            seen[0] += 1
            if seen[0] == (stop or math.inf) + 1:
                raise Stop
            return OBJECTIVE(model, batch, draws)

        model = tiny(seed=9)  # whatever it holds is replaced by what was stored
        try:
            run = train(folder=tmp_path, loss=loss, model=model if start else tiny())
        except Stop:
            assert read_done(tmp_path) == stop
    assert same(run.model, whole.model)
    assert same(run.ema, whole.ema)
    assert torch.equal(run.losses, whole.losses)


def read_done(folder):
    from course_lib.training import state

    path = folder / "last.safetensors"
    return state.read(path)[1]["done"] if path.exists() else 0


SCRIPT = """
import sys, time, pathlib
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_fit as here
from course_lib.training import FitConfig, fit
def batches(index):
    time.sleep(0.01)  # so that there is time to kill it
    return here.DATA[index]
config = FitConfig(steps=120, batch_size=8, learning_rate=1e-2, warmup=5, ema=0.9, save_every=0.02)
run = fit(here.tiny(), here.OBJECTIVE, batches, 40, config, folder=sys.argv[1], progress=False)
from safetensors.torch import save_file
save_file(run.ema.state_dict(), sys.argv[1] + "/done.safetensors")
"""


def test_killed_three_times(tmp_path):
    """SIGKILL at random moments: the final weights are the same bits as those of a run that was never stopped."""
    env = {**os.environ, "COURSE_PRECISION": "float32", "COURSE_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    script = SCRIPT.format(tests=str(Path(__file__).parent))

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", script, str(folder)], env=env, cwd=ROOT)

    folder, kills, dones = tmp_path / "killed", 0, []
    moments = torch.rand(3, generator=torch.Generator().manual_seed(os.getpid())).tolist()
    for moment in moments:
        process = start(folder)
        before, limit = read_done(folder), time.monotonic() + 120
        while process.poll() is None and read_done(folder) == before and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.5 * moment)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        dones.append(read_done(folder))
    assert kills >= 2
    assert dones == sorted(dones)
    assert dones[0] < 120
    assert start(folder).wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    killed, whole = (load_file(tmp_path / name / "done.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


TWO = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_fit as here
from course_lib.training import FitConfig, fit
config = FitConfig(steps=20, batch_size=8, learning_rate=1e-2, warmup=5, ema=0.9, accumulate={accumulate})
run = fit(
    here.tiny_without_dropout(), here.OBJECTIVE, here.DATA.__getitem__, 40, config, folder=sys.argv[1], progress=False
)
import torch.distributed as dist
assert dist.is_initialized() and dist.get_world_size() == 2
dist.destroy_process_group()
"""


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_are_one(tmp_path, accumulate):
    script = tmp_path / "script.py"
    script.write_text(TWO.format(tests=str(Path(__file__).parent), accumulate=accumulate))
    # What `accelerate launch` starts for several GPUs; for several CPU processes it would want MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "COURSE_PRECISION": "float32", "COURSE_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    config = FitConfig(steps=20, batch_size=8, learning_rate=1e-2, warmup=5, ema=0.9)
    one = train(config, model=tiny_without_dropout())
    two = load_file(tmp_path / "last.safetensors")
    for name, tensor in one.ema.state_dict().items():
        assert torch.allclose(two[f"ema.module.{name}"], tensor, atol=1e-4), name
    assert torch.allclose(two["losses"], one.losses, atol=1e-4)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_add_up(parts):
    config = FitConfig(steps=10, batch_size=8, learning_rate=1e-2)
    whole, split = (
        train(FitConfig(**{**vars(config), "accumulate": n}), model=tiny_without_dropout()) for n in (1, parts)
    )
    assert torch.allclose(whole.losses, split.losses, atol=1e-5)


def test_learning_rate():
    config = FitConfig(steps=100, learning_rate=1.0, warmup=10)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == pytest.approx(1.0)
    assert max(rates) == rates[10]
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    assert [FitConfig(steps=100, learning_rate=1.0, cosine=False).rate(s) for s in (150, 99)] == [
        1.0,
        99.0 / 101 + 1 / 101,
    ]


def test_draws_do_not_depend_on_the_split():
    whole = Draws(3, 7, 8, slice(0, 8))
    parts = [Draws(3, 7, 8, slice(k, k + 2)) for k in (0, 2, 4, 6)]
    for draw in (lambda d: d.integers(10), lambda d: d.normal(2, 3), lambda d: d.uniform()):
        assert torch.equal(draw(whole), torch.cat([draw(part) for part in parts]))
    assert not torch.equal(Draws(3, 8, 8, slice(0, 8)).normal(4), Draws(3, 7, 8, slice(0, 8)).normal(4))
    assert key(1, 2) != key(2, 1)
    assert len({key(0, k) for k in range(1000)}) == 1000


def test_every_picture_once_per_epoch():
    order = Order(40, 8, seed=3)
    first, second = (torch.cat([order(step) for step in range(k, k + 5)]) for k in (0, 5))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(40))
    assert not torch.equal(first, second)
    assert torch.equal(Order(40, 8, seed=3)(7), order(7))  # whatever was asked before
    ragged = Order(43, 8, seed=3)
    assert ragged.per_epoch == 5
    assert len(set(torch.cat([ragged(k) for k in range(5)]).tolist())) == 40


def test_average_forgets_its_start():
    assert [ema_decay(step, 0.999) for step in (0, 10, 10_000)] == [0.1, 11 / 20, 0.999]
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, 0.9)
    ema.update_parameters(model)
    nn.init.ones_(model.weight)
    value = 0.0
    for step in range(1, 200):
        ema.update_parameters(model)
        keep = min(0.9, (1 + step) / (10 + step))
        value = keep * value + (1 - keep)
        assert ema.module.weight.item() == pytest.approx(value, abs=1e-5)
    assert model.weight.item() == 1.0
    assert not any(p.requires_grad for p in ema.parameters())


def test_batch_statistics_come_along():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    run = fit(
        model, lambda m, x, draws: m(x + draws.normal(3)).square().mean(), DATA.__getitem__, 40, CONFIG, progress=False
    )
    assert torch.equal(run.ema[1].running_mean, model[1].running_mean)
    assert model[1].num_batches_tracked == 30


def test_best_weights_are_kept(tmp_path):
    scores = iter([3.0, 1.0, 2.0])
    weights = []

    def evaluate(network):
        assert not network.training
        weights.append(network.net[0].weight.clone())
        return next(scores)

    config = FitConfig(**{**vars(CONFIG), "evaluate_every": 10})
    run = train(config, folder=tmp_path, evaluate=evaluate)
    assert run.scores == {10: 3.0, 20: 1.0, 30: 2.0}
    assert torch.equal(load_file(tmp_path / "best.safetensors")["net.0.weight"], weights[1])
    assert train(config, folder=tmp_path, evaluate=evaluate).scores == run.scores  # finished: nothing is asked again


def test_evaluation_leaves_the_training_alone(tmp_path):
    config = FitConfig(**{**vars(CONFIG), "evaluate_every": 3})
    with_evaluation = train(config, evaluate=lambda network: torch.rand(()).item())
    assert same(train().model, with_evaluation.model)


# --- what cannot be done --------------------------------------------------------------------------------------------


def test_bad_settings():
    for settings in ({"steps": 0}, {"batch_size": 0}, {"accumulate": 0}, {"learning_rate": 0.0}, {"warmup": -1}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            FitConfig(**{"steps": 5, **settings})
    with pytest.raises(ValueError, match="batch_size=41"):
        train(FitConfig(steps=5, batch_size=41))
    with pytest.raises(ValueError, match="multiple of 3"):
        train(FitConfig(steps=5, batch_size=8, accumulate=3))
    with pytest.raises(ValueError, match="decay=1"):
        train(FitConfig(steps=5, batch_size=8, ema=1.0))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_state(tmp_path):
    def loss(model, batch, draws):
        value = OBJECTIVE(model, batch, draws)
        return value * math.inf if read_done(tmp_path) == 4 else value

    with pytest.raises(FloatingPointError, match="step 5"):
        train(folder=tmp_path, loss=loss)
    assert read_done(tmp_path) == 4


@pytest.mark.parametrize("damage", ["truncated", "altered", "pickled", "empty"])
def test_damaged_state_is_named_and_left_alone(tmp_path, damage):
    train(FitConfig(**{**vars(CONFIG), "steps": 3}), folder=tmp_path)
    path = tmp_path / "last.safetensors"
    blob = path.read_bytes()
    if damage == "pickled":
        torch.save({"model": tiny().state_dict()}, path)
    else:
        path.write_bytes({"truncated": blob[:-100], "altered": b"\xff" * 16 + blob[16:], "empty": b""}[damage])
    damaged = path.read_bytes()
    with pytest.raises(RunError, match=str(path)):
        train(FitConfig(**{**vars(CONFIG), "steps": 3}), folder=tmp_path)
    assert path.read_bytes() == damaged


def test_another_run_is_not_continued(tmp_path):
    train(folder=tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(RunError, match=r"learning_rate: 0\.01 there, 0\.02 now"):
        train(FitConfig(**{**vars(CONFIG), "learning_rate": 2e-2}), folder=tmp_path)
    with pytest.raises(RunError, match=r"another architecture .*net\.0"):
        train(folder=tmp_path, model=tiny(width=17))
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_both_networks_come_back_ready_for_use():
    """Neither drops out numbers nor learns statistics any more: two calls agree."""
    found = train()
    x, t = DATA[:4], torch.arange(4)
    for network in (found.model, found.ema, found.best):
        assert not network.training
        assert not any(module.training for module in network.modules())
        assert torch.equal(network(x, t), network(x, t))
