"""The benchmarks are scripts: run from anywhere, they find the packages that they need and not each other's names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["edit", "neurons", "search"])
def test_a_benchmark_says_what_it_does(name, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--help"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: ")
