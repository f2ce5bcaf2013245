from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from bench import gpu_steps
from bench.gpu import main, measured_elsewhere
from bench.gpu_case import measure
from bench.gpu_shapes import Case
from fluxfarm.acceleration import Acceleration, skipped_steps

ROOT = Path(__file__).parent.parent.parent
FILES = sorted(ROOT.glob("bench/gpu*.py"))


def test_the_whole_way_of_the_gpu_bench_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu"
    assert main([*["--device", "cpu", "--model", "tiny", "--rounds", "1", "--one-process", "--out"], str(out)]) == 0
    peak, encoder, plain, cached, fp8 = json.loads(out.with_suffix(".json").read_text())["cases"]
    assert peak["tflops"] > 0
    assert encoder["image_s"] > 0
    assert (plain["computed_steps"], cached["computed_steps"]) == (8, 4)
    for one in (plain, cached):
        assert 0 < one["step_s"] * one["steps"] <= one["image_s"] * one["batch"]
        assert 0 < one["tflops"] < peak["tflops"]
    assert cached["tflop_step"] == 2 * plain["tflop_step"]  # of a batch of two
    assert fp8["said"] == "fp8 needs an NVIDIA GPU"
    table = capsys.readouterr().out
    assert table == out.with_suffix(".md").read_text()
    assert "| tiny | fp32 | none | native | high | 2 | 64 | 8 |" in table


def test_a_case_has_a_process_of_its_own_and_a_time_box() -> None:
    tiny = Case("tiny", "cpu", precision="fp32", size=64, steps=8)
    assert measure(replace(tiny, seconds=0.0))["said"] == "out of time after step 1 of 2; the box is 0 s"
    assert measured_elsewhere(replace(tiny, precision="fp8"))["said"] == "fp8 needs an NVIDIA GPU"
    assert measured_elsewhere(replace(tiny, seconds=-29.9))["said"] == "ended after 0 s: out of time"


def test_it_needs_nothing_of_the_farm() -> None:
    assert len(FILES) == 4
    names = {
        name.partition(".")[0] if not name.startswith("bench.") else name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    own = {f"bench.{path.stem}" for path in FILES}
    assert names - own - sys.stdlib_module_names == {"torch", "diffusers", "transformers", "torchao"}


def test_its_schedule_is_the_farms() -> None:
    for level in get_args(Acceleration):
        for steps in range(1, 51):
            assert gpu_steps.skipped_steps(steps, level) == skipped_steps(steps, level)
