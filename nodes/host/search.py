"""A layer search in the host: with a bar, continued where it was stopped, its result in the output folder."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import comfyui_version

from ...loco_core.files import write_picture, write_text
from ...loco_core.localization.evaluation import QUIET, Evaluation, SearchProgress
from ...loco_core.localization.journal import Journal, search_settings
from ...loco_core.localization.localize import about_rows
from ...loco_core.localization.pictures import contact_sheet
from ...loco_core.localization.plan import SearchPlan
from ...loco_core.localization.report import provenance, result_json, scores_csv
from ...loco_core.localization.search import SearchResult, images_to_make, search
from ...loco_core.scoring.clip_score import Scorer
from .engine import ComfyEngine
from .folders import search_journals
from .progress import CountProgress, ImageProgress

logger = logging.getLogger(__name__)


def run_search(
    engine: ComfyEngine, scorer: Scorer | None, plan: SearchPlan, batch_rows: int, path: Path, node_id: str | None
) -> SearchResult:
    """The result, which is written to `path` as JSON; beside it a line for every image in a .csv, and the images."""
    came_from = provenance(engine, scorer, f"comfyui {comfyui_version.__version__}")
    journal = Journal.open(search_journals(), search_settings(plan, came_from["model_digest"], scorer))
    if len(journal):
        logger.info("LoCo Layer Search: %d images of this search are known from before", len(journal))
    shown = _Shown(engine, plan, node_id)
    progress = SearchProgress(shown.on_rows, shown.on_batch, shown.on_step)
    result = search(engine, scorer, plan, batch_rows, progress, journal)
    write_text(path, result_json(result, came_from))
    write_text(path.with_suffix(".csv"), scores_csv(plan, result.cells, result.scores))
    write_picture(path.with_suffix(".png"), contact_sheet(result, every=True))
    return result


class _Shown:
    """A bar over the probe, if there is one; then another over the images, which begins with the first of them."""

    def __init__(self, engine: ComfyEngine, plan: SearchPlan, node_id: str | None) -> None:
        self._images, self._steps, self._node_id = images_to_make(plan, engine.layers), plan.sampling.steps, node_id
        self.on_rows = QUIET.on_rows
        if plan.probe:
            about = about_rows(plan.probe, engine.layers, plan.window_size)
            self.on_rows = CountProgress(about, node_id, "probing the layers")

    @cached_property
    def _bar(self) -> ImageProgress:
        about = f"about {self._images} images of {self._steps} steps"
        return ImageProgress(self._images, self._steps, self._node_id, about, "; Run goes on from here")

    def on_step(self) -> None:
        self._bar.on_step()

    def on_batch(self, made: Evaluation) -> None:
        done = min(len(made.cells), self._images)
        self._bar.on_batch(done, self._images, made.label, made.thumbnails[-1], made.recalled)
