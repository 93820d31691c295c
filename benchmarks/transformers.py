"""Another prompt for single blocks of transformers: how exact it is, what a step of it costs, and what it finds.

Runs the tests in tests/host/transformers that measure this, on narrow models of ComfyUI's own classes with random
weights, and collects what they measured. COMFYUI_PATH says which ComfyUI. none_difference: no block chosen, against the
own prompt; all_difference: all blocks, against the other prompt; reference_difference: two blocks, against the
definition written by hand; each ||x - y|| / ||y|| of the latents. step_cost: seconds of a step with the last block
chosen, when the other text goes through all blocks, against a plain one; step_cost_first_block: with the first block
alone.

planted: of the demo transformer. gate_object, gate_style, gate_fact: the share of images in which the judge reads what
the prompt asks for. probe, exhaustive, naive, attention: the share of six styles, and of three changes of flags, for
which exactly the two planted blocks are named: by a probe, by scored images of every two adjacent blocks, by the first
of the blocks at which another text that flows on from there does most, and by attention. Writes
results/transformers.json; the last line of the output is one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this folder, for a file in it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import pytest  # noqa: E402 - the path comes first

from benchmarks.processes import say  # noqa: E402

TESTS = (ROOT / "tests" / "host" / "transformers", ROOT / "tests" / "host" / "test_demo_model.py")
CHOSEN = "costs or test_knowledge or (stock_nodes_draw and transformer)"
RESULT = ROOT / "benchmarks" / "results" / "transformers.json"
# What the names of recorded figures begin with: of a family, of what was planted, and of the gate.
FAMILY, PLANTED, GATE = "transformers ", "planted ", "transformer gate"


class Collector:
    """A pytest plugin that keeps what the tests record of each family, and of the demo transformer."""

    def __init__(self) -> None:
        self.families: dict[str, object] = {}
        self.planted: dict[str, object] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, value in report.user_properties:
                if name.startswith(FAMILY):
                    self.families[name.removeprefix(FAMILY)] = value
                elif name.startswith((PLANTED, GATE)):
                    self.planted[name.split(" ", 1)[1]] = value


def main() -> int:
    collector = Collector()
    failed = pytest.main(["-q", "--all", "--rootdir", str(ROOT), *map(str, TESTS), "-k", CHOSEN], plugins=[collector])
    figures = {"families": collector.families, "planted": collector.planted}
    if not failed:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(figures))
    return failed


if __name__ == "__main__":
    sys.exit(main())
