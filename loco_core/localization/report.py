"""A search's result as text and as files: JSON to load again, CSV with every image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from ..models.engine import Engine
from ..models.layers import LayerSet
from ..prompt_text import plain_text
from ..prompts import Attribute
from ..scoring.clip_score import LEAST_EFFECT, Scorer
from ..scoring.intervals import Estimate
from .plan import SearchPlan
from .score_table import Cell
from .search import SearchResult
from .verdict import SURE, Kind

FORMAT = 1
# Windows in the text of a report.
LISTED = 5


def verdict_text(result: SearchResult) -> str:
    """The verdict in a sentence or two."""
    verdict = result.verdict
    if verdict.kind is Kind.NO_EFFECT:
        return _no_effect_text(result)
    share = f"{verdict.share:.0%} of the effect of all layers"
    if verdict.kind is Kind.NO_RIVAL:
        return (
            f"{verdict.kind}: layers {result.layers} have {share}, and no other window fits beside them to compare "
            "with. Give a smaller window size to learn whether the concept is in few layers."
        )
    if verdict.kind is Kind.SPREAD:
        unsure = verdict.excess and verdict.excess.mean > 0 and verdict.excess.confidence_positive < SURE
        share += ", which may be less than half in other images" if unsure else ""
        return f"spread over several layers: the best window, layers {result.layers}, has {share}{_ahead(result)}."
    return f"localized: layers {result.layers} have {share}{_ahead(result)}."


def _no_effect_text(result: SearchResult) -> str:
    plan, whole = result.plan, result.verdict.whole
    tried = "no window is recommended" if result.windows else "no window was tried"
    images = f"{_points(whole)} in {whole.images} images of {plan.steps} steps"
    exhaustive = f", or effort exhaustive for images of {plan.sampling.steps}" if plan.confirming else ""
    if whole.mean >= LEAST_EFFECT:
        return (
            f"no effect that is sure: too few images, or too unlike, to tell whether they show the {plan.attribute} "
            f"({images}). Give more prompts or seeds{exhaustive}; {tried}."
        )
    return (
        f"no effect: the unmodified images show no {plan.attribute} that the scorer can tell from the target's "
        f"({images}). The model does not know it, the prompts differ in something else, or the scorer cannot see it"
        f"{'; to look closer, give effort exhaustive' if plan.confirming else ''}; {tried}."
    )


def _ahead(result: SearchResult) -> str:
    verdict = result.verdict
    if verdict.rival is None:
        return ""
    margin = verdict.rival.margin
    sure = f"{min(margin.confidence_positive, 0.999):.1%} sure" if margin.freedom else "from one image"
    apart = f"the best window apart from it, layers {verdict.rival.window} with {verdict.rival.effect.mean:.2f} points"
    return f", {_points(margin)} ahead of {apart} ({sure})"


def _points(value: Estimate) -> str:
    """An estimate with half its 95 % interval."""
    reach = f" \u00b1 {value.high - value.mean:.2f}" if value.freedom else ""
    return f"{value.mean:.2f}{reach} points"


def report_text(result: SearchResult) -> str:
    """What was found, in lines a person reads."""
    plan, tried = result.plan, result.windows
    against = "target" if plan.attribute is Attribute.FACT else "concept"
    found = [f"{plan.attribute}: layers {result.layers} of {result.layers.layer_count}"] if result.layers else []
    found.append(verdict_text(result))
    if result.confirmation:
        effect, raced = result.confirmation.effect, result.confirmation.raced
        says = "confirmed" if result.confirmation.holds else "NOT confirmed, search again with effort exhaustive"
        found.append(
            f"{says}: {effect.mean:.2f} points in {effect.images} images of {plan.sampling.steps} steps, "
            f"{raced.mean:.2f} in the search's of {plan.steps}"
        )
    found += [
        *result.warnings,
        f"CLIP-Score against the {against} prompts in images of {plan.steps} steps (difference to the unmodified "
        "images \u00b1 half the 95 % interval; images):",
        f"  unmodified    {result.baseline.mean():6.2f}  ({len(result.baseline)})",
    ]
    ranked = sorted(tried, key=lambda window: -result.effect(window).mean)[:LISTED]
    for window in [result.table.whole, *ranked]:
        effect = result.effect(window)
        name = "all layers" if window == result.table.whole else f"layers {window}"
        reach = f" \u00b1 {effect.high - effect.mean:.2f}" if effect.freedom else ""
        found.append(
            f"  {name:<13} {result.mean_score(window):6.2f}  ({plan.sign * effect.mean:+.2f}{reach}; {effect.images})"
        )
    left = len(tried) - len(ranked)
    found += [f"  and {left} more windows"] if left else []
    all_of_them = (2 + result.window_count) * len(plan.images)
    found.append(f"cost: as {result.cost:.0f} images of {plan.sampling.steps} steps; every window: {all_of_them}")
    return "\n".join([*found, *plan.taken])


def result_json(result: SearchResult, came_from: dict[str, str]) -> str:
    """The result as JSON. `came_from` is its `provenance`."""
    plan, verdict = result.plan, result.verdict
    content = {
        "format": FORMAT,
        "attribute": plan.attribute,
        "layers": list(result.layers),
        "layer_count": result.layers.layer_count,
        "verdict": {
            "kind": verdict.kind,
            "text": verdict_text(result),
            "whole": _numbers(verdict.whole),
            "effect": verdict.effect and _numbers(verdict.effect),
            "excess": verdict.excess and _numbers(verdict.excess),
            "rival": verdict.rival and list(verdict.rival.window),
            "rival_effect": verdict.rival and _numbers(verdict.rival.effect),
            "margin": verdict.rival and _numbers(verdict.rival.margin),
            "confirmed": result.confirmation and result.confirmation.holds,
        },
        "window_size": plan.window_size,
        "effort": plan.effort,
        "part": plan.part,
        "windows": [list(window) for window in result.windows],
        "baseline": float(result.baseline.mean()),
        "scores": [result.mean_score(window) for window in result.windows],
        "effects": [_numbers(result.effect(window)) for window in result.windows],
        "steps": plan.steps,
        "cost": result.cost,
        "warnings": list(result.warnings),
        "pairs": [asdict(pair) for pair in plan.pairs],
        "seeds": list(plan.seeds),
        "sampling": asdict(plan.sampling),
        "provenance": came_from,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _numbers(value: Estimate) -> dict[str, float | int | None]:
    """An estimate for JSON, which knows no NaN."""
    low, high = (None if np.isnan(end) else float(end) for end in (value.low, value.high))
    return {"mean": float(value.mean), "low": low, "high": high, "images": value.images}


def scores_csv(plan: SearchPlan, cells: Sequence[Cell], scores: Sequence[float]) -> str:
    """One line per image, in the order in which they were made: layers (none for an unmodified image), what of them
    gets the target prompt, concept, target, seed, steps, scored text, score, difference to the unmodified image.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("layers", "part", "concept", "target", "seed", "steps", "scored_text", "score", "difference")
    writer.writerow(columns)
    unmodified = {(cell.image, cell.steps): score for cell, score in zip(cells, scores, strict=True) if not cell.window}
    for cell, score in zip(cells, scores, strict=True):
        pair, seed = plan.images[cell.image]
        line = [cell.window or "", plan.part if cell.window else "", pair.concept, pair.target]
        scored = plain_text(plan.scored_text(pair))
        difference = score - unmodified[cell.image, cell.steps]
        writer.writerow([*line, seed, cell.steps, scored, f"{score:.4f}", f"{difference:.4f}"])
    return out.getvalue()


def provenance(engine: Engine, scorer: Scorer, host: str) -> dict[str, str]:
    """What a result came from: the model by its digest, the scorer, the program and PyTorch."""
    scored = {"scorer": scorer.name, "scorer_digest": scorer.digest}
    return {"model_digest": engine.digest(), **scored, "host": host, "torch": torch.__version__}


def layers_of_search(text: str, name: str) -> tuple[LayerSet, str]:
    """The layers in the JSON of `result_json`, and a sentence on the search. `name` is the file's, for errors."""
    try:
        content = json.loads(text)
        layers = LayerSet(tuple(content["layers"]), content["layer_count"])
        concepts = ", ".join(dict.fromkeys(pair["concept"] for pair in content["pairs"]))
        verdict = Kind(content["verdict"]["kind"])
        said = f"layers {layers} of {layers.layer_count}: {content['attribute']}, {concepts}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"file: {name!r} is not a search saved by LocoGen Layer Search ({error!r})") from error
    if not layers:
        raise ValueError(f"file: {name!r} found no layers ({verdict}: {concepts}); choose another search")
    return layers, said if verdict is Kind.LOCALIZED else f"{said} ({verdict})"
