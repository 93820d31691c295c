"""Full-size SD 1.5, SD 2.1 and SDXL: their layers, each one alone, and what an edit of SDXL costs.

Runs the tests in tests/host/full_size that measure this and collects what they measured; the weights are random and are
written once (checkpoints.py there). COMFYUI_PATH says which ComfyUI.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "host" / "full_size"
RESULT = ROOT / "benchmarks" / "results" / "full_size.json"
FAMILIES = ("sd15", "sd21", "sdxl")
# Which tests: parts of their names.
MEASURING = "alone or forward_order or little_memory or second_solve or same_edit"


class Collector:
    """A pytest plugin that keeps what the tests record, and counts the layers that passed alone."""

    def __init__(self) -> None:
        self.recorded: dict[str, object] = {}
        self.alone = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.recorded |= dict(report.user_properties)
            self.alone += report.passed and "test_alone" in report.nodeid


def rounded(figure: float | None) -> float | None:
    """To three digits; None where the test that measures it did not come so far."""
    return None if figure is None else float(f"{figure:.3g}")


def main() -> int:
    collector = Collector()
    failed = pytest.main(["-q", "--all", "--rootdir", str(ROOT), str(TESTS), "-k", MEASURING], plugins=[collector])
    recorded = collector.recorded
    names = (
        "sdxl_edit_seconds",
        "sdxl_extra_mb",
        "second_solve_share",
        "modes_difference_sd15",
        "modes_difference_sdxl",
    )
    figures = {
        "layers": {family: recorded.get(f"layers {family}") for family in FAMILIES},
        "alone_tests_passed": collector.alone,
        **{name: rounded(recorded.get(name)) for name in names},
    }
    details = {
        "sdxl_encode_seconds": rounded(recorded.get("sdxl_encode_seconds")),
        "tables": {family: recorded.get(f"table {family}") for family in FAMILIES},
    }
    print(json.dumps(figures))
    if None in (*figures.values(), *figures["layers"].values()):
        print(f"not all was measured; {RESULT.name} stays as it is", file=sys.stderr)
        return failed or 1
    RESULT.write_text(json.dumps(figures | details, indent=1) + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
