"""Where the loaded model holds a concept, edits solved for it, and checks. What was asked before costs nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ...loco_core.editing.calibrate import Calibration, calibrate, calibration_rows
from ...loco_core.editing.check import EditCheck, EditChecker, check_plan, prompts_plan
from ...loco_core.editing.fingerprint import fingerprint
from ...loco_core.editing.placing import pairs_plan, place_plan
from ...loco_core.editing.recipe import EditRecipe
from ...loco_core.editing.solve import Edit
from ...loco_core.localization.localize import Localization, about_rows, localize
from ...loco_core.localization.plan import ProbePlan
from ...loco_core.localization.probe import Probe, Prober
from ...loco_core.models.engine import Sampling
from ...loco_core.models.layers import LayerSet, ModelLayers
from ...loco_core.neurons.detection import Neurons
from ...loco_core.prompts import PromptPair
from .editing import check_fits, check_shapes
from .engine import ComfyEngine
from .progress import CountProgress
from .text_encoder import names_inversion

Answer = TypeVar("Answer")

# Answers that are kept for a model; beyond these the least recently used are given up.
MOST_KEPT = 32
_KEPT: WeakKeyDictionary[ModelPatcher, OrderedDict[Hashable, object]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Measuring:
    """On which model and how it is measured. size: of square images, in pixels; 0 for what the model was made for."""

    model: ModelPatcher
    clip: CLIP
    layers: ModelLayers
    size: int = 0
    seed: int = 0
    batch_rows: int = 16
    node_id: str | None = None

    @property
    def sampling(self) -> Sampling:
        size = self.size or self.layers.family.image_size(self.layers)
        return Sampling(1, 1.0, "euler", "normal", size, size)

    @property
    def engine(self) -> ComfyEngine:
        return ComfyEngine(self.model, self.clip, None, self.layers)

    def located(self, recipe: EditRecipe) -> Localization:
        """In which of all layers the recipe's concepts are told from their targets."""
        return self._located(place_plan(recipe, self.sampling, self.seed))

    def located_between(self, pairs: Sequence[PromptPair]) -> Localization:
        """In which of all layers the prompts of these pairs are told apart."""
        return self._located(pairs_plan(pairs, self.sampling, self.seed))

    def _located(self, plan: ProbePlan) -> Localization:
        def measure() -> Localization:
            progress = CountProgress(about_rows(plan, self.layers), self.node_id, "looking where it is")
            return localize(Prober(self.engine, plan, self.batch_rows, progress), self.layers)

        return self._kept(("located", plan), _prompts(plan.pairs), measure)

    def probed(self, recipe: EditRecipe) -> Probe:
        """What the recipe's own layers make of the difference between its concepts and their targets."""
        return self._probed(place_plan(recipe, self.sampling, self.seed), recipe.layers)

    def probed_between(self, pairs: Sequence[PromptPair], layers: LayerSet) -> Probe:
        """What these layers make of the difference between the prompts of these pairs."""
        return self._probed(pairs_plan(pairs, self.sampling, self.seed), layers)

    def _probed(self, plan: ProbePlan, layers: LayerSet) -> Probe:
        self.layers.chosen(layers)

        def measure() -> Probe:
            progress = CountProgress(plan.rows(1), self.node_id, "looking whether it is there")
            return Prober(self.engine, plan, self.batch_rows, progress).measure([layers])

        return self._kept(("probed", plan, layers), _prompts(plan.pairs), measure)

    def calibrated(self, recipe: EditRecipe) -> Calibration:
        """The recipe, solved with the settings that suit the model best."""
        (embedding,) = self.engine.encode([""])
        pooled = embedding.pooled if recipe.settings.pooled else None
        width, pooled_width = embedding.tokens.shape[1], None if pooled is None else len(pooled)
        check_shapes(self.model, self.layers, recipe.layers, width, pooled_width)

        def measure() -> Calibration:
            most = calibration_rows(check_plan(recipe, self.sampling, self.seed))
            progress = CountProgress(most, self.node_id, "trying settings")
            return calibrate(self.engine, recipe, self.sampling, self.seed, self.batch_rows, progress)

        prompts = [*recipe.preserve, *_prompts(recipe.pairs)]
        found = self._kept(("calibrated", recipe), prompts, measure)
        self._kept(_checked(found.edit, 1.0), prompts, lambda: found.check)
        return found

    def checked(self, edit: Edit, strength: float = 1.0) -> EditCheck:
        """What the edit does to the model."""
        check_fits(self.model, self.layers, edit)

        def measure() -> EditCheck:
            plan = check_plan(edit.recipe, self.sampling, self.seed)
            checker = EditChecker(
                self.engine, plan, self.batch_rows, CountProgress(plan.rows, self.node_id, "checking the edit")
            )
            return checker.check(edit, strength)

        prompts = [*edit.recipe.preserve, *_prompts(edit.recipe.pairs)]
        return self._kept(_checked(edit, strength), prompts, measure)

    def checked_ablation(self, ablated: ModelPatcher, neurons: Neurons) -> EditCheck:
        """What the ablation does to prompts with the concept beside those that they go on from, and to all without."""
        plan = prompts_plan(neurons.pairs, neurons.without_concept, self.sampling, self.seed)
        progress = CountProgress(plan.rows, self.node_id, "checking the ablation")
        checker = EditChecker(self.engine, plan, self.batch_rows, progress)
        return checker.check_model(replace(self, model=ablated).engine)

    def _kept(self, question: Hashable, prompts: Sequence[str], measure: Callable[[], Answer]) -> Answer:
        """What `measure` says, or said before of the same model, text encoder and question about these prompts."""
        if any(map(names_inversion, prompts)):
            return measure()  # an inversion's file may have changed
        kept = _KEPT.setdefault(self.model, OrderedDict())
        encoder = fingerprint(self.engine.encode)
        key = question, encoder, self.model.patches_uuid, self.size, self.seed
        if key not in kept:
            kept[key] = measure()
            while len(kept) > MOST_KEPT:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return cast(Answer, kept[key])


def _prompts(pairs: Sequence[PromptPair]) -> list[str]:
    return [prompt for pair in pairs for prompt in (pair.concept, pair.target)]


def _checked(edit: Edit, strength: float) -> Hashable:
    """The question what an edit does at a strength: of one recipe, edits with the same figures are the same."""
    return "checked", edit.recipe, edit.figures, strength
