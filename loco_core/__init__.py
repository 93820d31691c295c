"""Mechanistic knowledge localization for text-to-image models (Basu et al., ICML 2024, arXiv 2405.01008).

    from loco_core import DiffusersEngine, demo_pipeline, search_report, search

LocoGen finds the text layers that carry a style, an object or a fact: `search`; `localize` does it without images.
LocoEdit edits the K and V weights of the layers found, in closed form: `solve_edit`. `detect_neurons` and `ablation` do
the same to single neurons. All are written against the `Engine` protocol and know nothing of the program that runs the
model; `DiffusersEngine` is one for scripts. What needs diffusers, open_clip or matplotlib is imported when it is first
asked for: where one is missing, all else works.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .comparison.erasure import ErasurePlan, ErasureResult, erasure_report, measure_erasure
from .editing.calibrate import Calibration, SettingsFrom, Trial, calibrate, calibration_rows
from .editing.check import EditCheck, EditChecker, check_plan, check_report
from .editing.closed_form import EditOperator
from .editing.file import load_edit, recipe_metadata, save_edit
from .editing.lora import edit_lora
from .editing.recipe import EditRecipe, EditRequest, EditSettings, Preservation, Ridge, Tokens, combined, edit_recipe
from .editing.report import calibration_report, edit_report
from .editing.solve import Edit, solve_edit
from .images import ImageMaker, Progress
from .localization.evaluation import SearchProgress
from .localization.journal import Journal, search_settings
from .localization.localize import Localization, localize
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
from .neurons.ablation import Ablation, ChooseBy, Mode, Replacement, ablation, chosen_neurons
from .neurons.detection import Neurons, NeuronTokens, Ranking, detect_neurons
from .neurons.effects import EffectsRequest, measure_effects
from .neurons.file import load_neurons, neuron_recipe, save_neurons
from .neurons.lora import ablation_lora
from .neurons.report import neuron_report
from .neurons.sweep import SweepRequest, SweepResult, parse_counts, sweep_neurons, sweep_report
from .prompts import Attribute, Contrast, PromptPair, contrast_prompts, preserved_prompts, prompt_pairs, whole_pairs
from .scoring.clip_score import Scorer
from .scoring.intervals import Estimate, estimate

if TYPE_CHECKING:
    from .diffusers_host import DEMO_SCORER, AblatedEngine, DiffusersEngine, demo_pipeline, load_pipeline
    from .localization.pictures import contact_sheet, model_figure, probe_figure, probe_map, search_plot
    from .scoring.open_clip_scorer import ClipScorer, load_scorer

# fmt: off
__all__ = [
    "AblatedEngine", "Ablation", "Attribute", "Calibration", "ChooseBy", "ClipScorer", "Contrast", "DEMO_SCORER",
    "DiffusersEngine", "Edit", "EditCheck", "EditChecker", "EditOperator", "EditRecipe", "EditRequest", "EditSettings",
    "EffectsRequest", "Effort", "Engine", "ErasurePlan", "ErasureResult", "Estimate", "Family", "ImageMaker",
    "Intervention", "Journal", "Kind", "LayerSet", "Localization", "Mode", "ModelLayers", "Naming", "NeuronTokens",
    "Neurons", "Part", "Preservation", "Probe", "ProbePlan", "Prober", "Progress", "PromptPair", "Ranking",
    "Replacement", "Ridge", "Row", "Sampling", "Scorer", "SearchPlan", "SearchProgress", "SearchResult", "SettingsFrom",
    "SweepRequest", "SweepResult", "TextEmbedding", "TextLayer", "Tokens", "Trial", "Verdict", "ablation",
    "ablation_lora", "calibrate", "calibration_report", "calibration_rows", "check_plan", "check_report",
    "chosen_neurons", "combined", "contact_sheet", "contrast_prompts", "demo_pipeline", "detect_neurons", "edit_lora",
    "edit_recipe", "edit_report", "erasure_report", "estimate", "layers_of_search", "load_edit", "load_neurons",
    "load_pipeline", "load_scorer", "localize", "measure_effects", "measure_erasure", "model_figure", "neuron_recipe",
    "neuron_report", "parse_counts", "preserved_prompts", "probe_figure", "probe_map", "probe_report", "prompt_pairs",
    "provenance", "recipe_metadata", "result_json", "save_edit", "save_lora", "save_neurons", "scores_csv", "search",
    "search_plot", "search_report", "search_settings", "solve_edit", "sweep_neurons", "sweep_report", "whole_pairs",
    "windows",
]
# fmt: on

# What needs more than ComfyUI brings, by the module that it is in.
_LATER = {
    "diffusers_host": ("DEMO_SCORER", "AblatedEngine", "DiffusersEngine", "demo_pipeline", "load_pipeline"),
    "localization.pictures": ("contact_sheet", "model_figure", "probe_figure", "probe_map", "search_plot"),
    "scoring.open_clip_scorer": ("ClipScorer", "load_scorer"),
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
