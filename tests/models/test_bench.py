"""The benchmark compares equal work, and its parts run."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

PATH = Path(__file__).parents[2] / "tools" / "bench.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_turn_measures(bench):
    found = bench.measure("course, float32", "cpu", batch=1, rounds=1, threads=1, compiled=False)
    assert set(found) == {"gflop", "parameters", "train", "sample", "memory"}
    assert all(value > 0 for value in found.values())
    assert found["sample"] < found["train"]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_work_is_the_same(bench):
    work = {}
    for library in ("course", "diffusers"):
        model = bench.build(library)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 32, 32), torch.tensor([5]))
        work[library] = counter.get_total_flops(), sum(p.numel() for p in model.parameters())
    for ours, theirs in zip(*work.values(), strict=True):
        assert abs(ours / theirs - 1) < 0.05


def test_it_can_be_asked_for_help(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        bench.main()
    assert "--threads" in capsys.readouterr().out
