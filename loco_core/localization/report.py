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
from ..report import Report
from ..scoring.clip_score import LEAST_EFFECT, Scorer
from ..scoring.intervals import Estimate
from .localize import Localization
from .plan import SearchPlan
from .probe_report import LISTED, localization_text, probe_figures
from .score_table import Cell
from .search import SearchResult
from .verdict import SURE, Kind, Verdict

FORMAT = 2


def verdict_text(result: SearchResult) -> str:
    """The verdict in a sentence or two."""
    verdict = result.verdict
    if verdict is None:
        assert result.located is not None  # one of the two has judged
        return localization_text(result.located)
    if verdict.kind is Kind.NO_EFFECT:
        return _no_effect_text(result, verdict)
    share = f"{verdict.share:.0%} of the effect of all layers"
    have = "has" if len(result.layers) == 1 else "have"
    if verdict.kind is Kind.NO_RIVAL:
        return (
            f"{verdict.kind}: {result.layers.named} {have} {share}, and no other window fits beside them to compare "
            "with. Give a smaller window size to learn whether the concept is in few layers."
        )
    if verdict.kind is Kind.SPREAD:
        unsure = verdict.excess and verdict.excess.mean > 0 and verdict.excess.confidence_positive < SURE
        share += ", which may be less than half in other images" if unsure else ""
        return f"{verdict.kind}: the best window, {result.layers.named}, has {share}."
    return f"{verdict.kind}: {result.layers.named} {have} {share}."


def _no_effect_text(result: SearchResult, verdict: Verdict) -> str:
    images = f"{_points(verdict.whole)} in {verdict.whole.images} images"
    if verdict.whole.mean >= LEAST_EFFECT:
        return (
            f"no effect that is sure: too few images, or too unlike, to tell whether they show the "
            f"{result.plan.attribute} ({images}). Give more prompts or seeds; no window was tried."
        )
    return (
        f"no effect: the unmodified images show no {result.plan.attribute} that the scorer can tell from the target's "
        f"({images}). The model does not know it, the prompts differ in something else, or the scorer cannot see it; "
        "no window was tried."
    )


def _ahead(verdict: Verdict) -> list[str]:
    """How sure it is that no other window has more."""
    if verdict.rival is None:
        return []
    margin = verdict.rival.margin
    sure = f"{min(margin.confidence_positive, 0.999):.1%} sure" if margin.freedom else "from one image"
    apart = f"the best window apart from it, {verdict.rival.window.named} with {verdict.rival.effect.mean:.2f} points"
    return [f"{_points(margin)} ahead of {apart} ({sure})"]


def _points(value: Estimate) -> str:
    """An estimate with half its 95 % interval, where it has one."""
    reach = f" \u00b1 {value.high - value.mean:.2f}" if value.has_interval else ""
    return f"{value.mean:.2f}{reach} points"


def search_report(result: SearchResult) -> Report:
    """What was found, and whether images bear it out; then the figures."""
    plan, located, verdict = result.plan, result.located, result.verdict
    found = [f"{plan.attribute}: {result.layers.named} of {result.layers.layer_count}"] if result.layers else []
    found += [verdict_text(result), *_confirmation(result), *result.warnings]
    figures = _ahead(verdict) if verdict else []
    figures += _score_lines(result) if result.scored else []
    figures += probe_figures(located) if located else []
    figures.append(f"cost: {result.rows} rows of the denoiser, {len(result.cells)} images among them")
    return Report(tuple(found), (*figures, *plan.taken))


def _confirmation(result: SearchResult) -> list[str]:
    """What the images' scores say of what the probe found."""
    if result.confirmed is None:
        return []
    whole, effect = result.effect(result.table.whole).mean, result.effect(result.layers).mean
    if whole < LEAST_EFFECT:
        says = "NOT confirmed: the scorer sees no such difference in the images; look at them"
    elif result.confirmed:
        says = "confirmed in images"
    else:
        says = "NOT confirmed in images: look at them, or search again with effort exhaustive"
    return [f"{says} ({result.layers.named} {effect:.2f} points, all layers {whole:.2f})"]


def _score_lines(result: SearchResult) -> list[str]:
    """The scores of the unmodified images, of all layers, and of the best sets."""
    plan, table = result.plan, result.table
    against = "target" if plan.attribute is Attribute.FACT else "concept"
    lines = [
        f"CLIP-Score against the {against} prompts (difference to the unmodified images \u00b1 half the 95 % interval; "
        "images):",
        f"  unmodified    {result.baseline.mean():6.2f}  ({len(result.baseline)})",
    ]
    others = [layers for layers in table.sets if layers != table.whole or layers == result.layers]
    ranked = sorted(others, key=lambda layers: -result.effect(layers).mean)[:LISTED]
    for layers in [table.whole, *ranked]:
        effect = result.effect(layers)
        name = "all layers" if layers == table.whole else layers.named
        reach = f" \u00b1 {effect.high - effect.mean:.2f}" if effect.has_interval else ""
        score = result.mean_score(layers)
        lines.append(f"  {name:<13} {score:6.2f}  ({plan.sign * effect.mean:+.2f}{reach}; {effect.images})")
    left = len(others) - len(ranked)
    return [*lines, *([f"  and {left} more"] if left else [])]


def result_json(result: SearchResult, came_from: dict[str, str]) -> str:
    """The result as JSON. `came_from` is its `provenance`."""
    plan, shares = result.plan, result.shares
    content = {
        "format": FORMAT,
        "attribute": plan.attribute,
        "layers": list(result.layers),
        "smallest_set": list(result.smallest),
        "layer_count": result.layers.layer_count,
        "verdict": {"kind": result.kind, "text": verdict_text(result), "confirmed": result.confirmed},
        "effort": plan.effort,
        "window_size": plan.window_size,
        "part": plan.part,
        "windows": [list(window) for window in shares],
        "shares": list(shares.values()),
        "probe": result.located and _probe_content(result.located),
        "scores": _scores_content(result) if result.scored else None,
        "rows": result.rows,
        "warnings": list(result.warnings),
        "pairs": [asdict(pair) for pair in plan.pairs],
        "seeds": list(plan.seeds),
        "sampling": asdict(plan.sampling),
        "provenance": came_from,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _probe_content(found: Localization) -> dict[str, object]:
    """What the probe says of its windows at its noise levels."""
    probed, plan = found.probe, found.probe.plan
    return {
        "size": probed.size,
        "share": _numbers(probed.estimate(found.layers)),
        "off_axis": probed.off_axis(found.layers),
        "rival": found.rival and list(found.rival),
        "steps": plan.steps,
        "level_shares": probed.level_shares.tolist(),
        "windows": [list(window) for window in found.tried],
        "shares": [probed.shares_by_level(window).tolist() for window in found.tried],
        "acts_from_to": [step / plan.sampling.steps for step in found.acts],
        "rows": probed.rows,
        **({} if probed.attention is None else {"attention": probed.attention.tolist()}),
    }


def _scores_content(result: SearchResult) -> list[dict[str, object]]:
    """Of the unmodified images, and of every set of layers."""
    sets = [
        {"layers": list(layers), "score": result.mean_score(layers), "effect": _numbers(result.effect(layers))}
        for layers in result.table.sets
    ]
    return [{"layers": [], "score": float(result.baseline.mean()), "effect": None}, *sets]


def _numbers(value: Estimate) -> dict[str, float | int | None]:
    """An estimate for JSON, which knows no NaN."""
    low, high = (None if np.isnan(end) else float(end) for end in (value.low, value.high))
    return {"mean": float(value.mean), "low": low, "high": high, "images": value.images}


def scores_csv(plan: SearchPlan, cells: Sequence[Cell], scores: Sequence[float]) -> str:
    """One line per image, in the order in which they were made: layers (none for an unmodified image), what of them
    gets the target prompt, concept, target, seed, scored text, score, difference to the unmodified image; without a
    scorer no scores.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("layers", "part", "concept", "target", "seed", "scored_text", "score", "difference")
    writer.writerow(columns)
    unmodified = {cell.image: score for cell, score in zip(cells, scores, strict=True) if not cell.window}
    for cell, score in zip(cells, scores, strict=True):
        pair, seed = plan.images[cell.image]
        line = [cell.window or "", plan.part if cell.window else "", pair.concept, pair.target]
        scored = plain_text(plan.scored_text(pair))
        numbers = ["", ""] if np.isnan(score) else [f"{score:.4f}", f"{score - unmodified[cell.image]:.4f}"]
        writer.writerow([*line, seed, scored, *numbers])
    return out.getvalue()


def provenance(engine: Engine, scorer: Scorer | None, host: str) -> dict[str, str]:
    """What a result came from: the model by its digest, the scorer if any, the program and PyTorch."""
    scored = {} if scorer is None else {"scorer": scorer.name, "scorer_digest": scorer.digest}
    return {"model_digest": engine.digest(), **scored, "host": host, "torch": torch.__version__}


def layers_of_search(text: str, name: str) -> tuple[LayerSet, str]:
    """The layers in the JSON of `result_json`, and a sentence on the search. `name` is the file's, for errors."""
    try:
        content = json.loads(text)
        layers = LayerSet(tuple(content["layers"]), content["layer_count"])
        concepts = ", ".join(dict.fromkeys(pair["concept"] for pair in content["pairs"]))
        verdict = Kind(content["verdict"]["kind"])
        said = f"{layers.named} of {layers.layer_count}: {content['attribute']}, {concepts}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"file: {name!r} is not a search saved by LoCo Layer Search ({error!r})") from error
    if not layers:
        raise ValueError(f"file: {name!r} found no layers ({verdict}: {concepts}); choose another search")
    return layers, said if verdict is Kind.LOCALIZED else f"{said} ({verdict})"
