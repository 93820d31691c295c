"""The demo's jobs on the diffusers engine, for a machine without ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import diffusers
import torch

from loco_core.diffusers_host.demo_model import SCORER, demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.editing.edit import EditSettings, edit_recipe, solve_edit
from loco_core.files import write_picture, write_text
from loco_core.localization.pictures import contact_sheet, model_figure, score_plot
from loco_core.localization.plan import SearchPlan
from loco_core.localization.report import provenance, result_json, scores_csv, verdict_text
from loco_core.localization.search import search
from loco_core.models.engine import Row, Sampling
from loco_core.models.layers import LayerSet
from loco_core.neurons.detection import ablation, chosen_neurons, detect_neurons
from loco_core.prompts import PromptPair, contrast_prompts
from loco_core.scoring.clip_score import load_scorer

from .jobs import GUIDANCE, SEARCH_SEEDS, SIZE, STEPS, Change, Edit, Picture, Search

ROWS = 32
SAMPLING = Sampling(STEPS, GUIDANCE, "euler", "linspace", SIZE, SIZE)
WINDOW_SIZE = 2


class DiffusersHost:
    """A demo.jobs.Host; what a search finds is written to `output`."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._engine, self._scorer = DiffusersEngine(demo_pipeline()), load_scorer(SCORER)
        self._found: dict[str, LayerSet] = {}
        self.name = f"diffusers {diffusers.__version__}"

    def search(self, search_: Search) -> dict:
        pairs = tuple(PromptPair(*pair) for pair in zip(search_.concepts, search_.targets, strict=True))
        plan = SearchPlan(pairs, tuple(range(SEARCH_SEEDS)), search_.attribute, WINDOW_SIZE, SAMPLING)
        result = search(self._engine, self._scorer, plan, ROWS)
        self._found[search_.attribute] = result.layers
        stem = self._output / f"search_{search_.attribute}"
        came_from = provenance(self._engine, self._scorer, self.name)
        write_text(stem.with_suffix(".json"), result_json(result, came_from))
        write_text(stem.with_suffix(".csv"), scores_csv(plan, result.cells, result.scores))
        write_picture(self._output / f"{stem.name}_scores.png", score_plot(result))
        write_picture(self._output / f"{stem.name}_windows.png", contact_sheet(result))
        write_picture(self._output / f"{stem.name}_model.png", model_figure(result, self._engine.layers))
        return {"window": list(result.layers), "verdict": result.verdict.kind, "text": verdict_text(result)}

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        embeddings = self._engine.encode([picture.prompt for picture in pictures])
        rows = [
            Row(embedding, picture.seed + 10_000 * copy)
            for embedding, picture in zip(embeddings, pictures, strict=True)
            for copy in range(picture.count)
        ]
        with self._changed(change):
            parts = [self._engine.generate(rows[i : i + ROWS], SAMPLING) for i in range(0, len(rows), ROWS)]
        return torch.cat(parts).movedim(-1, 1)

    def _changed(self, change: Change | None) -> AbstractContextManager[None]:
        """The engine's model is changed while the context lasts."""
        if change is None:
            return nullcontext()
        layers = self._found[change.attribute]
        if isinstance(change, Edit):
            asked = (change.concept, change.target, "\n".join(change.preserve), change.attribute)
            recipe = edit_recipe(*asked, EditSettings(), layers, self._engine.text_encoder)
            return self._engine.edited(solve_edit(self._engine.encode, recipe))
        prompts = contrast_prompts(change.concept, "\n".join(change.without))
        asked = (prompts.concept, prompts.without, layers, prompts.others, "values")
        neurons = detect_neurons(self._engine.encode, self._engine.key_value_weights, *asked)
        return self._engine.ablated(ablation(neurons, chosen_neurons(neurons, "count", change.count, 0.0)))
