"""A search's result as text and as files: JSON to load again, CSV with every image."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict

import numpy as np

from .layers import LayerSet
from .search import SearchResult

FORMAT = 1


def report_text(result: SearchResult) -> str:
    """What was found, in lines a person reads."""
    plan, means = result.plan, result.mean_scores
    against = "target" if plan.attribute == "fact" else "concept"
    ranked = np.argsort(-means if plan.attribute == "fact" else means)
    found = [
        f"{plan.attribute}: layers {result.layers} of {result.layers.layer_count}",
        f"CLIP-Score against the {against} prompts, {plan.images_per_window} images per window "
        f"(difference to the unmodified images \u00b1 standard error):",
        f"  unmodified    {result.baseline.mean():6.2f}",
    ]
    for place in ranked[:5]:
        difference = means[place] - result.baseline.mean()
        name = f"layers {result.windows[place]}"
        found.append(
            f"  {name:<13} {means[place]:6.2f}  ({difference:+.2f} \u00b1 {result.standard_errors[place]:.2f})"
        )
    return "\n".join(found)


def result_json(result: SearchResult, provenance: dict[str, str]) -> str:
    """The result as JSON. `provenance` tells the model, the scorer and the versions."""
    plan = result.plan
    content = {
        "format": FORMAT,
        "attribute": plan.attribute,
        "layers": list(result.layers),
        "layer_count": result.layers.layer_count,
        "window_size": plan.window_size,
        "windows": [list(window) for window in result.windows],
        "baseline": float(result.baseline.mean()),
        "scores": result.mean_scores.tolist(),
        "standard_errors": [None if np.isnan(value) else float(value) for value in result.standard_errors],
        "pairs": [asdict(pair) for pair in plan.pairs],
        "seeds": list(plan.seeds),
        "sampling": asdict(plan.sampling),
        "provenance": provenance,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def result_csv(result: SearchResult) -> str:
    """One line per image: window, pair, seed, scored text, score, difference to the unmodified image."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["layers", "concept", "target", "seed", "scored_text", "score", "difference"])
    plan = result.plan
    for name, scores in zip(["", *map(str, result.windows)], [result.baseline, *result.scores], strict=True):
        for place, score in enumerate(scores):
            pair, seed = plan.pairs[place // len(plan.seeds)], plan.seeds[place % len(plan.seeds)]
            difference = score - result.baseline[place]
            text = plan.scored_text(pair)
            writer.writerow([name, pair.concept, pair.target, seed, text, f"{score:.4f}", f"{difference:.4f}"])
    return out.getvalue()


def read_layers(text: str, name: str) -> tuple[LayerSet, str]:
    """The layers in the JSON of `result_json`, and a sentence on the search. `name` is the file's, for errors."""
    try:
        content = json.loads(text)
        layers = LayerSet(tuple(content["layers"]), content["layer_count"])
        concepts = ", ".join(dict.fromkeys(pair["concept"] for pair in content["pairs"]))
        return layers, f"layers {layers} of {layers.layer_count}: {content['attribute']}, {concepts}"
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"file: {name!r} is not a search saved by LocoGen Layer Search ({error!r})") from error
