"""FLUX.2 on one GPU, in its true shapes with random weights: seconds, memory, share of the matrix units' peak.

Standalone: torch, diffusers and transformers are all it needs; no weights, no network, nothing of the farm.

    python -m bench.gpu                                  # every model, the usual settings
    python -m bench.gpu --model dev --precision bf16,fp8 --compile none,regional --size 1024 --cache none,high
    python -m bench.gpu --device cpu --model tiny        # the same code in seconds, for a test

Random weights draw noise, but take the time and memory of the real ones. Each case has a process of its own, so that
one that runs out of memory or time spoils no other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from bench.gpu_shapes import RESULT, SHAPES, Case, Shape

#: OpenMP's threads that spin would make a shared CPU's figures worthless
ALWAYS = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def main(arguments: list[str]) -> int:
    """Measure every case, print each as it comes, write ``OUT.json`` and ``OUT.md``."""
    asked = _parser().parse_args(arguments)
    found: list[dict[str, Any]] = []
    for case in _cases(asked):
        one = asdict(case) | (_measured_here(case) if asked.one_process else measured_elsewhere(case))
        found.append(one)
        sys.stderr.write(f"{json.dumps(one)}\n")
        _write(Path(asked.out), found)  # what is measured stays, whatever happens to the next case
    sys.stdout.write(_markdown(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help=f"some of {', '.join(SHAPES)}; default: all but tiny")
    parser.add_argument("--device", default="cuda")
    for name, told in (
        ("precision", "bf16, fp8, fp32"),
        ("compile", "none, regional"),
        ("attention", "native, _native_cudnn, flash, _flash_3_hub, sage, … as diffusers names them"),
        ("cache", "none, regular, high"),
        ("batch", "numbers"),
        ("size", "pixels a side"),
    ):
        parser.add_argument(f"--{name}", default="", help=f"{told}; every combination of what is given is run")
    parser.add_argument("--steps", type=int, default=0, help="default: the model's own")
    parser.add_argument("--rounds", type=int, default=2, help="timed images; the median counts")
    parser.add_argument("--seconds", type=float, default=600.0, help="time box of one case, building included")
    parser.add_argument("--out", default="gpu-bench", help="where to write: OUT.json and OUT.md")
    parser.add_argument("--one-process", action="store_true", help="all cases in this one; a hung one ends them all")
    return parser


def _cases(asked: argparse.Namespace) -> Iterator[Case]:
    on_cpu = asked.device == "cpu"
    base = Case("", asked.device, precision="fp32" if on_cpu else "bf16", rounds=asked.rounds, seconds=asked.seconds)
    yield replace(base, part="peak")
    if not on_cpu:
        yield replace(base, part="peak", precision="fp8")
    for model in filter(None, asked.model.split(",")) if asked.model else ("klein-4b", "klein-9b", "dev"):
        shape = SHAPES[model]
        plain = replace(
            base, model=model, steps=asked.steps or shape.steps, size=64 if model == "tiny" else 1024
        )  # what is not given on the command line
        yield replace(plain, part="encoder")
        names = ("precision", "compile", "attention", "cache", "batch", "size")
        if any(getattr(asked, name) for name in names):
            lists = [_list(getattr(asked, name), getattr(plain, name)) for name in names]
            yield from (_changed(plain, dict(zip(names, values, strict=True))) for values in product(*lists))
        else:
            yield from (_changed(plain, changes) for changes in _usual(plain, shape))


def _changed(case: Case, changes: dict[str, Any]) -> Case:
    return replace(case, **changes)


def _list(text: str, default: str | int) -> list[str | int]:
    given = text.split(",") if text else [default]
    return [type(default)(one) for one in given]


def _usual(plain: Case, shape: Shape) -> list[dict[str, Any]]:
    """One setting after the other, then those that win together."""
    if plain.model == "tiny":
        return [{}, {"cache": "high", "batch": 2}, {"precision": "fp8"}]
    fast = {"precision": "fp8", "compile": "regional", "attention": "_native_cudnn"}
    caches = [] if shape.guidance == 1.0 else ["regular", "high"]  # four distilled steps have none to skip
    return [
        {},
        {"attention": "_native_cudnn"},
        {"compile": "regional"},
        {"compile": "regional", "attention": "_native_cudnn"},
        *({"compile": "regional", "attention": "_native_cudnn", "cache": cache} for cache in caches),
        {"precision": "fp8"},
        {"precision": "fp8", "compile": "regional"},
        fast,
        *(fast | {"cache": cache} for cache in caches),
        fast | {"batch": 4},
        fast | {"size": 512},
        fast | {"size": 512, "batch": 4},
        {"size": 512, "batch": 4},
    ]


def _measured_here(case: Case) -> dict[str, Any]:
    from bench.gpu_case import measure  # noqa: PLC0415 - torch is for the processes of the cases

    return measure(case)


def measured_elsewhere(case: Case) -> dict[str, Any]:
    """The case in a process of its own, which is ended when its time is over."""
    command = [sys.executable, "-m", "bench.gpu_case", json.dumps(asdict(case))]
    environment = os.environ | ALWAYS
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=case.seconds + 30, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"said": f"ended after {case.seconds + 30:.0f} s: out of time"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"said": f"exit status {done.returncode}: {last[:200]}"}
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _write(out: Path, found: list[dict[str, Any]]) -> None:
    packages = {name: _version(name) for name in ("torch", "diffusers", "transformers", "torchao")}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps({"packages": packages, "cases": found}, indent=1) + "\n")
    out.with_name(f"{out.name}.md").write_text(_markdown(found))


def _markdown(found: list[dict[str, Any]]) -> str:
    """The table; a case that did not run says why."""
    peaks = {one["precision"]: one.get("tflops") for one in found if one["part"] == "peak"}
    hardware = next((one["hardware"] for one in found if "hardware" in one), "no machine")
    lines = [f"Measured {_now()[:10]} on {hardware}; random weights in the true shapes.", ""]
    for one in found:
        if one["part"] == "peak":
            told = f"{one['tflops']:.1f} TFLOP/s" if "tflops" in one else one["said"]
            lines.append(f"Matrix peak, {one['precision']}: {told}.\n")
    names = ("model", "precision", "compile", "attention", "cache", "batch", "size", "steps")
    lines += [f"| {' | '.join(names)} | s/step | s/image | peak GiB | share of peak | warm-up s |"]
    lines += ["|" + "---|" * (len(names) + 5)]
    for one in found:
        if one["part"] == "peak":
            continue
        told = (
            [str(one[name]) for name in names] if one["part"] == "image" else [one["model"], "text encoder", *[""] * 6]
        )
        lines.append(f"| {' | '.join([*told, *_figures(one, peaks)])} |")
    return "\n".join(lines) + "\n"


def _figures(one: dict[str, Any], peaks: dict[str, float | None]) -> list[str]:
    if "said" in one:
        return [one["said"], "", "", "", ""]
    peak = peaks.get(one["precision"])
    share = f"{one['tflops'] / peak:.0%}" if peak and "tflops" in one else ""
    step, warm = (f"{one[name]:.3f}" if name in one else "" for name in ("step_s", "warm_up_s"))
    return [step, f"{one['image_s']:.3f}", f"{one['peak_gib']:.1f}", share, warm]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
