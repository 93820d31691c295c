"""A search's result as text and as files: JSON to load again, CSV with every image."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from .engine import Engine
from .layers import LayerSet
from .search import SearchPlan, SearchResult

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


def result_json(result: SearchResult, came_from: dict[str, str]) -> str:
    """The result as JSON. `came_from` is its `provenance`."""
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
        "provenance": came_from,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def scores_csv(plan: SearchPlan, windows: Sequence[LayerSet], scores: Sequence[float]) -> str:
    """One line per image: layers, concept, target, seed, scored text, score, difference to the unmodified image.

    `scores` are in a search's order, the unmodified images first; fewer than all, where the search was stopped.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["layers", "concept", "target", "seed", "scored_text", "score", "difference"])
    images = list(itertools.product(plan.pairs, plan.seeds))
    jobs = itertools.product(("", *map(str, windows)), enumerate(images))
    for (name, (place, (pair, seed))), score in zip(jobs, scores, strict=False):
        line = [name, pair.concept, pair.target, seed, plan.scored_text(pair)]
        writer.writerow([*line, f"{score:.4f}", f"{score - scores[place]:.4f}"])
    return out.getvalue()


def provenance(engine: Engine, scorer: str, host: str) -> dict[str, str]:
    """What a result came from: the model by its hash, the scorer, the program and PyTorch."""
    return {"model_hash": model_hash(engine), "scorer": scorer, "host": host, "torch": torch.__version__}


def model_hash(engine: Engine) -> str:
    """Tells models apart by what their cross-attention reads: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for layer in range(len(engine.layers)):
        for weight in engine.key_value_weights(layer):
            digest.update(weight.sum(0).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_layers(text: str, name: str) -> tuple[LayerSet, str]:
    """The layers in the JSON of `result_json`, and a sentence on the search. `name` is the file's, for errors."""
    try:
        content = json.loads(text)
        layers = LayerSet(tuple(content["layers"]), content["layer_count"])
        concepts = ", ".join(dict.fromkeys(pair["concept"] for pair in content["pairs"]))
        return layers, f"layers {layers} of {layers.layer_count}: {content['attribute']}, {concepts}"
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"file: {name!r} is not a search saved by LocoGen Layer Search ({error!r})") from error
