"""How fast the course's U-Net trains and samples, beside other people's, side by side in one run (`make bench`).

The same work for all: width 64, levels (1, 2, 2), 32x32 RGB, batch 64, parameters and operations within 5% of each
other. Contenders take turns, several rounds of them, and the fastest of each counts: on a machine that others use too,
only such minima and their ratios mean something. Each contender runs in a process of its own, so that peak memory is
its own as well. Needs diffusers; denoising-diffusion-pytorch joins in if it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

SIZE, CHANNELS, WIDTH, MULTS = 32, 3, 64, (1, 2, 2)
# name: (library, precision, layout); float32 and contiguous is what other libraries do unless told
CASES = {
    "course, float32": ("course", "float32", "channels_last"),
    "diffusers, float32": ("diffusers", "float32", "contiguous"),
    "denoising-diffusion-pytorch, float32": ("ddp", "float32", "contiguous"),
    "course, bfloat16": ("course", "bfloat16", "channels_last"),
    "diffusers, bfloat16": ("diffusers", "bfloat16", "contiguous"),
}


def build(library: str) -> torch.nn.Module:
    """The network of one library, as a function (x, t) -> noise."""
    torch.manual_seed(0)
    if library == "course":
        from course_lib import runtime
        from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig

        runtime.keep_memory()  # as `fit` and `sample` do
        return DDPMUNet(DDPMUNetConfig(SIZE, CHANNELS, WIDTH, MULTS, attention=(8,)))
    if library == "diffusers":
        from diffusers import UNet2DModel

        widths = tuple(WIDTH * m for m in MULTS)
        return UNet2DModel(
            sample_size=SIZE, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=widths,
            layers_per_block=2, attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    from denoising_diffusion_pytorch import Unet

    return Unet(WIDTH, dim_mults=MULTS, channels=CHANNELS)


def measure(name: str, device: str, batch: int, rounds: int, threads: int, compiled: bool) -> dict[str, float]:
    """Seconds of one training step and one sampling step (minima), peak memory in MB, GFLOP and parameters."""
    library, precision, layout = CASES[name]
    torch.set_num_threads(threads)
    model = build(library).to(device)
    last = layout == "channels_last"
    if last:
        model = model.to(memory_format=torch.channels_last)
    x = torch.randn(batch, CHANNELS, SIZE, SIZE, device=device)
    x = x.to(memory_format=torch.channels_last) if last else x
    t = torch.randint(0, 1000, (batch,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=library == "course")
    run = torch.compile(model) if compiled else model

    def predict() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            out = run(x, t)
        return out.sample if hasattr(out, "sample") else out

    def train() -> None:
        (predict().float() - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def sample() -> None:
        predict()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1], t[:1])
    found = {"gflop": counter.get_total_flops() / 1e9, "parameters": sum(p.numel() for p in model.parameters())}
    for what, step in (("train", train), ("sample", sample)):
        seconds = []
        for _ in range(rounds + 1):  # the first one warms up
            begin = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        found[what] = min(seconds[1:])
    if device == "cuda":
        found["memory"] = torch.cuda.max_memory_allocated() / 2**20
    else:
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="steps in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile for all")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one turn of one contender, in its own process
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = (device, arguments.batch, arguments.rounds, arguments.threads, arguments.compile)
    if arguments.only:
        print(json.dumps(measure(arguments.only, *settings)))
        return
    names = [n for n in CASES if CASES[n][0] != "ddp" or importlib.util.find_spec("denoising_diffusion_pytorch")]
    best: dict[str, dict[str, float]] = {}
    for _ in range(arguments.turns):
        for name in names:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            turn = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            old = best.setdefault(name, turn)
            best[name] = turn | {key: min(old[key], turn[key]) for key in ("train", "sample", "memory")}
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"{where}, torch {torch.__version__}, batch {arguments.batch}{', compiled' if arguments.compile else ''}")
    # Forward and backward pass together are three forward passes' worth of operations.
    heads = (("train s", 9), ("images/s", 10), ("TFLOP/s", 9), ("sample s", 10), ("memory MB", 11), ("GFLOP", 7))
    print(" " * 38 + "".join(f"{head:>{width}s}" for head, width in heads) + "  million")
    for name, b in best.items():
        speed = arguments.batch / b["train"]
        print(
            f"{name:38s}{b['train']:9.3f}{speed:10.1f}{3e-3 * b['gflop'] * speed:9.3f}{b['sample']:10.3f}"
            f"{b['memory']:11.0f}{b['gflop']:7.2f}{b['parameters'] / 1e6:9.2f}"
        )
    for what in ("train", "sample"):
        for ours, theirs in (
            ("course, float32", "diffusers, float32"),
            ("course, bfloat16", "diffusers, bfloat16"),
            ("course, bfloat16", "diffusers, float32"),  # what each does by itself, as the next line
            ("course, bfloat16", "denoising-diffusion-pytorch, float32"),
        ):
            if theirs not in best:
                continue
            print(f"{what}: {ours} is {best[theirs][what] / best[ours][what]:.2f} times as fast as {theirs}")


if __name__ == "__main__":
    main()
