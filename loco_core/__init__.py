"""Mechanistic knowledge localization for text-to-image models (Basu et al., ICML 2024, arXiv 2405.01008).

    from loco_core import demo_pipeline, engine_for, search_report, search

LocoGen finds the text layers that carry a style, an object or a fact: `search`; `localize` does it without images.
LocoEdit edits the K and V weights of the layers found, in closed form: `solve_edit`. `detect_neurons` and `ablation` do
the same to single neurons. All are written against the `Engine` protocol and know nothing of the program that runs the
model; `engine_for` gives one for scripts. Every name is imported when it is first asked for: a command's help needs
no PyTorch, and where diffusers, open_clip or matplotlib is missing, all else works.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same as below, for type checkers
    from .comparison.erasure import ErasurePlan, ErasureResult, erasure_report, measure_erasure
    from .diffusers_host import DEMO_SCORER, AblatedEngine, DiffusersEngine, demo_pipeline, engine_for, load_pipeline
    from .editing.calibrate import Calibration, SettingsFrom, Trial, calibrate, calibration_rows
    from .editing.check import EditCheck, EditChecker, advice_for, check_plan, check_report
    from .editing.closed_form import EditOperator
    from .editing.file import load_edit, recipe_metadata, save_edit
    from .editing.lora import edit_lora
    from .editing.recipe import (
        EditRecipe,
        EditRequest,
        EditSettings,
        Preservation,
        Ridge,
        Tokens,
        combined,
        edit_recipe,
    )
    from .editing.report import calibration_report, edit_report
    from .editing.solve import Edit, solve_edit
    from .images import ImageMaker, Progress
    from .localization.evaluation import SearchProgress
    from .localization.journal import Journal, search_settings
    from .localization.localize import Localization, localize
    from .localization.pictures import contact_sheet, probe_picture, search_picture
    from .localization.plan import Effort, ProbePlan, SearchPlan
    from .localization.probe import Probe, Prober
    from .localization.probe_report import probe_report
    from .localization.report import layers_of_search, provenance, result_json, scores_csv, search_report
    from .localization.search import SearchResult, search
    from .localization.verdict import Kind, Verdict
    from .lora_file import save_lora
    from .models.engine import Engine, Intervention, Row, Sampling, TextEmbedding
    from .models.family import Family, Naming
    from .models.layers import LayerSet, ModelLayers, Part, TextLayer, windows
    from .neurons.ablation import USUAL, Ablation, ChooseBy, Mode, Replacement, ablation, chosen_neurons
    from .neurons.detection import Neurons, NeuronTokens, Ranking, detect_neurons
    from .neurons.effects import EffectsRequest, measure_effects
    from .neurons.file import load_neurons, neuron_recipe, save_neurons
    from .neurons.lora import ablation_lora
    from .neurons.report import neuron_report
    from .neurons.sweep import SweepRequest, SweepResult, parse_counts, sweep_neurons, sweep_report
    from .prompts import Attribute, Contrast, PromptPair, contrast_prompts, preserved_prompts, prompt_pairs, whole_pairs
    from .scoring.clip_score import Scorer
    from .scoring.intervals import Estimate, estimate
    from .scoring.open_clip_scorer import ClipScorer, load_scorer

# fmt: off
# What a script imports, by the module that it is in.
_HOMES = {
    "comparison.erasure": "ErasurePlan ErasureResult erasure_report measure_erasure",
    "diffusers_host": "AblatedEngine DEMO_SCORER DiffusersEngine demo_pipeline engine_for load_pipeline",
    "editing.calibrate": "Calibration SettingsFrom Trial calibrate calibration_rows",
    "editing.check": "EditCheck EditChecker advice_for check_plan check_report",
    "editing.closed_form": "EditOperator",
    "editing.file": "load_edit recipe_metadata save_edit",
    "editing.lora": "edit_lora",
    "editing.recipe": "EditRecipe EditRequest EditSettings Preservation Ridge Tokens combined edit_recipe",
    "editing.report": "calibration_report edit_report",
    "editing.solve": "Edit solve_edit",
    "images": "ImageMaker Progress",
    "localization.evaluation": "SearchProgress",
    "localization.journal": "Journal search_settings",
    "localization.localize": "Localization localize",
    "localization.pictures": "contact_sheet probe_picture search_picture",
    "localization.plan": "Effort ProbePlan SearchPlan",
    "localization.probe": "Probe Prober",
    "localization.probe_report": "probe_report",
    "localization.report": "layers_of_search provenance result_json scores_csv search_report",
    "localization.search": "SearchResult search",
    "localization.verdict": "Kind Verdict",
    "lora_file": "save_lora",
    "models.engine": "Engine Intervention Row Sampling TextEmbedding",
    "models.family": "Family Naming",
    "models.layers": "LayerSet ModelLayers Part TextLayer windows",
    "neurons.ablation": "USUAL Ablation ChooseBy Mode Replacement ablation chosen_neurons",
    "neurons.detection": "NeuronTokens Neurons Ranking detect_neurons",
    "neurons.effects": "EffectsRequest measure_effects",
    "neurons.file": "load_neurons neuron_recipe save_neurons",
    "neurons.lora": "ablation_lora",
    "neurons.report": "neuron_report",
    "neurons.sweep": "SweepRequest SweepResult parse_counts sweep_neurons sweep_report",
    "prompts": "Attribute Contrast PromptPair contrast_prompts preserved_prompts prompt_pairs whole_pairs",
    "scoring.clip_score": "Scorer",
    "scoring.intervals": "Estimate estimate",
    "scoring.open_clip_scorer": "ClipScorer load_scorer",
}
# fmt: on
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
