"""Another prompt for single blocks of transformers: how exact it is, and what a step of it costs.

Runs the tests in tests/host/transformers that measure this, on narrow models of ComfyUI's own classes with random
weights, and collects what they measured. COMFYUI_PATH says which ComfyUI. none_difference: no block chosen, against the
own prompt; all_difference: all blocks, against the other prompt; reference_difference: two blocks, against the
definition written by hand; each ||x - y|| / ||y|| of the latents. step_cost: seconds of a step with the last block
chosen, when the other text goes through all blocks, against a plain one; step_cost_first_block: with the first block
alone. Writes results/transformers.json; the last line of the output is one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Without this file's folder, for it has a package's name; the root comes last, for ComfyUI has a module `nodes` too.
sys.path[:] = [*(path for path in sys.path if path != str(ROOT / "benchmarks")), str(ROOT)]

import pytest  # noqa: E402 - the path comes first

from benchmarks.processes import say  # noqa: E402

TESTS = ROOT / "tests" / "host" / "transformers"
RESULT = ROOT / "benchmarks" / "results" / "transformers.json"
NAME = "transformers "


class Collector:
    """A pytest plugin that keeps what the tests record of each family."""

    def __init__(self) -> None:
        self.families: dict[str, object] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            own = {name.removeprefix(NAME): value for name, value in report.user_properties if name.startswith(NAME)}
            self.families |= own


def main() -> int:
    collector = Collector()
    failed = pytest.main(["-q", "--all", "--rootdir", str(ROOT), str(TESTS), "-k", "costs"], plugins=[collector])
    figures = {"families": collector.families}
    if not failed:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(figures))
    return failed


if __name__ == "__main__":
    sys.exit(main())
