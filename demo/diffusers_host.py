"""The demo's jobs on the diffusers engine, for a machine without ComfyUI."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import diffusers
import peft  # noqa: F401 - diffusers loads LoRAs with it: that it is missing should be known before the searches
import torch

from loco_core import (
    DEMO_SCORER,
    ChooseBy,
    DiffusersEngine,
    EditRequest,
    EditSettings,
    LayerSet,
    Part,
    PromptPair,
    Row,
    Sampling,
    SearchPlan,
    SearchProgress,
    ablation,
    calibrate,
    chosen_neurons,
    contrast_prompts,
    demo_pipeline,
    detect_neurons,
    edit_lora,
    edit_recipe,
    load_scorer,
    provenance,
    recipe_metadata,
    result_json,
    save_lora,
    scores_csv,
    search,
)
from loco_core import Edit as SolvedEdit
from loco_core.files import write_picture, write_text
from loco_core.localization.localize import about_rows
from loco_core.localization.pictures import contact_sheet, search_picture
from loco_core.localization.report import verdict_text
from loco_core.localization.search import images_to_make

from .jobs import GUIDANCE, SEARCH_SEEDS, SIZE, STEPS, Change, Edit, LoRA, Picture, Search

ROWS = 32
SAMPLING = Sampling(STEPS, GUIDANCE, "euler", "linspace", SIZE, SIZE)


class DiffusersHost:
    """A demo.jobs.Host; what a search finds is written to `output`.

    `on_share` is told which share of the running job is done.
    """

    def __init__(self, output: Path, on_share: Callable[[float], None] = lambda share: None) -> None:
        self._output, self._on_share = output, on_share
        self._pipeline, self._scorer = demo_pipeline(), load_scorer(DEMO_SCORER)
        self._engine = DiffusersEngine(self._pipeline)
        self._found: dict[str, LayerSet] = {}
        self._edits: dict[Edit, SolvedEdit] = {}
        self.name = f"diffusers {diffusers.__version__}"

    def search(self, search_: Search) -> dict:
        pairs = tuple(PromptPair(*pair) for pair in zip(search_.concepts, search_.targets, strict=True))
        plan = SearchPlan(pairs, tuple(range(SEARCH_SEEDS)), search_.attribute, SAMPLING)
        result = search(self._engine, self._scorer, plan, ROWS, self._search_progress(plan))
        self._found[search_.attribute] = result.layers
        stem = self._output / f"search_{search_.attribute}"
        came_from = provenance(self._engine, self._scorer, self.name)
        write_text(stem.with_suffix(".json"), result_json(result, came_from))
        write_text(stem.with_suffix(".csv"), scores_csv(plan, result.cells, result.scores))
        write_picture(self._output / f"{stem.name}_map.png", search_picture(result, self._engine.layers))
        write_picture(self._output / f"{stem.name}_images.png", contact_sheet(result))
        return {"window": list(result.layers), "verdict": result.kind, "text": verdict_text(result)}

    def _search_progress(self, plan: SearchPlan) -> SearchProgress:
        """Counts rows of the denoiser, for the probe and for the images."""
        per_image = plan.sampling.steps * plan.sampling.rows_per_step
        probing = about_rows(plan.probe, self._engine.layers) if plan.probe else 0
        whole = probing + per_image * images_to_make(plan, self._engine.layers)
        return SearchProgress(
            on_rows=lambda done: self._on_share(min(done, probing) / whole),
            on_batch=lambda made: self._on_share((probing + per_image * len(made.cells)) / whole),
        )

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        embeddings = self._engine.encode([picture.prompt for picture in pictures])
        rows = [
            Row(embedding, picture.seed + 10_000 * copy)
            for embedding, picture in zip(embeddings, pictures, strict=True)
            for copy in range(picture.count)
        ]
        batches = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
        steps = itertools.count(1)

        def on_step() -> None:
            self._on_share(next(steps) / (len(batches) * SAMPLING.steps))

        with self._changed(change):
            parts = [self._engine.generate(batch, SAMPLING, on_step) for batch in batches]
        return torch.cat(parts).movedim(-1, 1)

    def save_lora(self, edit: Edit) -> Path:
        solved, engine = self._solved(edit), self._engine
        path = self._output / f"remove_{edit.concept}_lora.safetensors"
        save_lora(
            edit_lora(solved, engine.layers, engine.key_value_weights), path, engine.layers, recipe_metadata(solved, {})
        )
        return path

    def _changed(self, change: Change | None) -> AbstractContextManager[None]:
        """The engine's model is changed while the context lasts."""
        if change is None:
            return nullcontext()
        if isinstance(change, LoRA):
            return self._with_lora(change.file)
        if isinstance(change, Edit):
            return self._engine.edited(self._solved(change))
        layers = self._found[change.attribute]
        contrast = contrast_prompts(change.concept, "\n".join(change.without))
        neurons = detect_neurons(self._engine, contrast, layers, Part.VALUES)
        return self._engine.ablated(ablation(neurons, chosen_neurons(neurons, ChooseBy.COUNT, change.count)))

    def _solved(self, edit: Edit) -> SolvedEdit:
        """With the settings that are best for the model, found once."""
        if edit not in self._edits:
            request = EditRequest(edit.concept, edit.target, "\n".join(edit.preserve), edit.attribute)
            recipe = edit_recipe(request, EditSettings(), self._found[edit.attribute], self._engine.text_encoder)
            self._edits[edit] = calibrate(self._engine, recipe, SAMPLING, 0, ROWS).edit
        return self._edits[edit]

    @contextmanager
    def _with_lora(self, file: Path) -> Iterator[None]:
        """diffusers' own loader applies the file while the context lasts."""
        diffusers.utils.logging.set_verbosity_error()  # it warns that the LoRA changes no text encoder
        self._pipeline.load_lora_weights(file.parent, weight_name=file.name)
        try:
            yield
        finally:
            self._pipeline.unload_lora_weights()
