"""The demo: the model's knowledge is found, removed and changed, in pictures a person opens first.

    python demo/run.py          a style and a fact, in some minutes: demo/output/index.html
    python demo/run.py --all    all styles and facts, ablated neurons, a negative control: demo/output/summary.json

Called by `python dev.py demo`; runs in a real ComfyUI server where COMFYUI_PATH names one, else on diffusers. Replaces
demo/output/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
# The model is too small to gain from more threads, here and in the server; beside other work they are much slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from demo.progress import Progress, clock  # noqa: E402 - the path comes first; what loads PyTorch is imported below

OUTPUT = ROOT / "demo" / "output"


@contextmanager
def host(progress: Progress) -> Iterator:
    """ComfyUI where COMFYUI_PATH names one, else diffusers: a demo.jobs.Host."""
    comfyui = os.environ.get("COMFYUI_PATH")
    progress.begin("starting ComfyUI" if comfyui else "loading the model")
    if not comfyui:
        from demo.diffusers_host import DiffusersHost

        yield DiffusersHost(OUTPUT, progress.share)
        return
    from demo.comfy_host import ComfyHost
    from demo.server import Server

    with tempfile.TemporaryDirectory() as folder, Server(Path(comfyui), Path(folder)) as server:
        yield ComfyHost(server, OUTPUT, progress.share)


def show_tour(progress: Progress) -> str:
    """Runs the tour and writes its page; returns where to look."""
    from demo.judge import load_judge
    from demo.page import write_page
    from demo.tour import IMAGES, tour

    progress.expect(IMAGES)
    begun = time.monotonic()
    with host(progress) as running:
        seen = tour(running, load_judge(), progress, OUTPUT)
        page = write_page(OUTPUT, seen, running.name, clock(time.monotonic() - begun))
    return f"Open this page to see it:\n{page}"


def run_programme(progress: Progress) -> str:
    """Runs the whole programme and writes its summary; returns the figures and where to look."""
    from demo.judge import load_judge
    from demo.programme import IMAGES, Programme, table

    progress.expect(IMAGES)
    with host(progress) as running:
        summary = Programme(running, load_judge(), progress, OUTPUT).run()
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return f"{table(summary)}\nLook at the pictures and summary.json in {OUTPUT}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole programme: 15 to 45 minutes")
    whole = parser.parse_args().all
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    with Progress(sys.stdout) as progress:
        progress.begin("loading PyTorch")
        told = run_programme(progress) if whole else show_tour(progress)
    print(told)


if __name__ == "__main__":
    main()
