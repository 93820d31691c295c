"""The demo transformer as a bench for edits, in a process of its own, as the benchmark starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from benchmarks.edit_bench import Task, validation_sheet
from benchmarks.transformer_bench import TransformerBench
from loco_core.prompts import Attribute

measured = TransformerBench().measured(Task(Attribute.STYLE, ("woodcut",)), validation_sheet)
print("known:", measured.known)
"""


@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="needs ComfyUI")
def test_the_transformers_blocks_are_given_the_other_prompt_and_the_judge_sees_the_style():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1] == "known: True", ran.stderr
