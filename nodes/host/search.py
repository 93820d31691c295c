"""A layer search in the host: with a bar, continued where it was stopped, its result in the output folder."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import comfyui_version

from ...loco_core.files import write_text
from ...loco_core.localization.evaluation import Evaluation, SearchProgress
from ...loco_core.localization.journal import Journal, search_settings
from ...loco_core.localization.plan import SearchPlan
from ...loco_core.localization.report import provenance, result_json, scores_csv
from ...loco_core.localization.search import SearchResult, search
from ...loco_core.scoring.clip_score import Scorer
from .engine import ComfyEngine
from .folders import search_journals
from .progress import ImageProgress, show_text

logger = logging.getLogger(__name__)


def run_search(
    engine: ComfyEngine, scorer: Scorer, plan: SearchPlan, batch_rows: int, path: Path, node_id: str | None
) -> SearchResult:
    """The result, which is written to `path` as JSON, with every image's score in a .csv beside it."""
    steps, most = plan.sampling.steps, math.ceil(plan.most_images(engine.layers))
    progress = ImageProgress(
        most,
        steps,
        node_id,
        f"{len(plan.windows(engine.layers))} windows, {len(plan.images)} images each; as long as about {most} images "
        f"of {steps} steps at most",
    )
    came_from = provenance(engine, scorer, f"comfyui {comfyui_version.__version__}")
    journal = Journal.open(search_journals(), search_settings(plan, came_from["model_digest"], scorer))
    if len(journal):
        told = f"{len(journal)} images of this search are known from before"
        logger.info("LocoGen Layer Search: %s", told)
        show_text(told, node_id)

    def on_batch(made: Evaluation) -> None:
        progress.on_batch(min(made.cost, most), most, made.label, made.thumbnails[-1], made.recalled)

    result = search(engine, scorer, plan, batch_rows, SearchProgress(on_batch, progress.on_step), journal)
    write_text(path, result_json(result, came_from))
    write_text(path.with_suffix(".csv"), scores_csv(plan, result.cells, result.scores))
    return result
