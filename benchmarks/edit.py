"""Our edit beside the authors', UCE's and SPEED's on the demo model: what is erased, what is kept, what it costs.

    python benchmarks/edit.py            # half an hour on two cores; COMFYUI_PATH for the comparison of the modes
    python benchmarks/edit.py --tokens   # instead: which tokens to edit, for styles and for facts

Everybody edits the same concept prompts towards the same target and is given the same prompts to preserve; each with
its published defaults, at the layers it edits by default: ours and the authors' at those found, UCE and SPEED at all.
Images are of held-out templates, on the same seeds, read by the judge. Writes results/edit.json and edit.png. The last
line of the output is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks import peers, solve_time  # noqa: E402
from benchmarks.modes import modes_difference  # noqa: E402
from demo.jobs import (  # noqa: E402
    GUIDANCE,
    PLAIN_PROMPTS,
    SIZE,
    STEPS,
    Picture,
    Reading,
    fact_edit,
    flag_pictures,
    styled_pictures,
)
from demo.judge import load_judge  # noqa: E402
from demo.world import COUNTRIES, NONE, STYLES  # noqa: E402
from loco_core.diffusers_host.demo_model import SCORER, demo_pipeline  # noqa: E402
from loco_core.diffusers_host.engine import DiffusersEngine  # noqa: E402
from loco_core.drawing import drawn  # noqa: E402
from loco_core.editing.closed_form import leading_directions  # noqa: E402
from loco_core.editing.recipe import EditRecipe, EditRequest, EditSettings, Tokens, edit_recipe  # noqa: E402
from loco_core.editing.solve import Edit, solve_edit  # noqa: E402
from loco_core.editing.token_pairs import token_pairs  # noqa: E402
from loco_core.files import write_picture, write_text  # noqa: E402
from loco_core.models.engine import Row, Sampling, TextEmbedding  # noqa: E402
from loco_core.models.layers import LayerSet, Part  # noqa: E402
from loco_core.prompts import Attribute  # noqa: E402
from loco_core.scoring.open_clip_scorer import load_scorer  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
STYLE_LAYERS, FACT_LAYERS = LayerSet((8, 9), 16), LayerSet((6, 7), 16)
SAMPLING = Sampling(STEPS, GUIDANCE, "euler", "linspace", SIZE, SIZE)
ROWS = 32
# What is removed at once: each style by itself, three, five.
GROUPS = (
    *((style,) for style in STYLES),
    ("pointillism", "woodcut", "blueprint"),
    tuple(style for style in STYLES if style != "watercolor"),
)
METHODS = ("ours", "authors", "uce", "speed")
COLOURS = {"erased": "#d1495b", "kept_styles": "#2b6777", "kept_objects": "#8d99ae"}


class Bench:
    """The demo model on diffusers, and what its images show."""

    def __init__(self) -> None:
        self.pipeline = demo_pipeline()
        self.engine, self.judge, self.scorer = DiffusersEngine(self.pipeline), load_judge(), load_scorer(SCORER)
        self._embeddings: dict[str, TextEmbedding] = {}
        self._unedited: dict[Picture, Reading] = {}

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        for prompt in prompts:
            if prompt not in self._embeddings:
                (self._embeddings[prompt],) = self.engine.encode([prompt])
        return [self._embeddings[prompt] for prompt in prompts]

    def read(self, pictures: Sequence[Picture]) -> Reading:
        rows = [
            Row(embedding, picture.seed + 10_000 * copy)
            for picture, embedding in zip(pictures, self.encode([p.prompt for p in pictures]), strict=True)
            for copy in range(picture.count)
        ]
        parts = [self.engine.generate(rows[i : i + ROWS], SAMPLING) for i in range(0, len(rows), ROWS)]
        return Reading(self.judge, pictures, torch.cat(parts).movedim(-1, 1))

    def read_unedited(self, groups: dict[str, list[Picture]]) -> dict[str, Reading]:
        """What each group's images show by the model as loaded; made once."""
        for pictures in groups.values():
            if pictures[0] not in self._unedited or len(self._unedited[pictures[0]].images) != total(pictures):
                self._unedited[pictures[0]] = self.read(pictures)
        return {name: self._unedited[pictures[0]] for name, pictures in groups.items()}

    def recipe(self, styles: Sequence[str], tokens: Tokens = Tokens.TAIL) -> EditRecipe:
        """Ours: the defaults, with what the demo preserves."""
        keep = (*PLAIN_PROMPTS, *(style for style in STYLES if style not in styles))
        request = EditRequest("\n".join(styles), "a painting", "\n".join(keep), Attribute.STYLE)
        return edit_recipe(request, EditSettings(tokens), STYLE_LAYERS, self.engine.text_encoder)

    @contextmanager
    def edited_by(self, method: str, styles: Sequence[str]) -> Iterator[None]:
        if method == "ours":
            with self.engine.edited(solve_edit(self.encode, self.recipe(styles))):
                yield
            return
        originals, targets, preserved = self.last_tokens(styles)
        held = peers.SpeedInputs(self.encode([""])[0].tokens.double().T)
        change = {
            "authors": lambda weight: peers.authors(weight, originals, targets),
            "uce": lambda weight: peers.uce(weight, originals, targets, preserved),
            "speed": lambda weight: peers.speed(weight, originals, targets, preserved, held),
        }[method]
        layers = STYLE_LAYERS if method == "authors" else range(16)
        part = Part.VALUES if method == "speed" else Part.BOTH
        weights = [
            self.pipeline.unet.get_submodule(self.engine.layers.projection(layer, projection)).weight.data
            for layer in layers
            for projection in part.projections
        ]
        before = [weight.clone() for weight in weights]
        try:
            for weight in weights:
                weight.copy_(change(weight.double()))
            yield
        finally:
            for weight, own in zip(weights, before, strict=True):
                weight.copy_(own)

    def last_tokens(self, styles: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """X_o, X_t and P of the last subject tokens, of the same prompts as ours."""
        recipe = self.recipe(styles)
        concepts, targets = (self.encode([getattr(p, name) for p in recipe.pairs]) for name in ("concept", "target"))
        pairs = [
            token_pairs(concept, target, Tokens.LAST_SUBJECT) for concept, target in zip(concepts, targets, strict=True)
        ]
        originals, replacements = (torch.cat(part, 1) for part in zip(*pairs, strict=True))
        kept = [embedding.tokens[embedding.chunks[-1].last_subject] for embedding in self.encode(recipe.preserve)]
        return originals, replacements, torch.stack(kept, 1).double()

    def preservation_error(self, edit: Edit) -> float:
        """max |(W^ - W) q| / |W q| over the directions preserved exactly, with float32 weights."""
        kept = self.encode(list(dict.fromkeys([*(p.target for p in edit.recipe.pairs), "", *edit.recipe.preserve])))
        basis = leading_directions([e.tokens.T for e in kept], edit.recipe.settings.preserved_tolerance)
        before = [self.engine.key_value_weights(layer) for layer in edit.recipe.layers]
        with self.engine.edited(edit):
            after = [self.engine.key_value_weights(layer) for layer in edit.recipe.layers]
        errors = [
            (torch.linalg.norm((new - old).double() @ basis, dim=0) / torch.linalg.norm(old.double() @ basis, dim=0))
            for pair, changed in zip(before, after, strict=True)
            for old, new in zip(pair, changed, strict=True)
        ]
        return torch.cat(errors).max().item()


def kept(before: Reading, after: Reading, attribute: str) -> float:
    """Of the images that were right before the edit, the share that still is."""
    was = before.correct(attribute)
    return float(after.correct(attribute)[was].mean()) if was.any() else float("nan")


def evaluate(bench: Bench, method: str, styles: Sequence[str], before: dict[str, Reading]) -> dict[str, float]:
    """erased: of the images that showed a style to be removed, the share that no longer does. kept_styles and
    kept_objects: `kept`, in images of the other styles and in all. score: mean CLIP-Score of the others' prompts.
    """
    with bench.edited_by(method, styles):
        after = {style: bench.read(pictures) for style, pictures in images_of(styles).items()}
    others = [style for style in STYLES if style not in styles]
    erased = 1 - np.mean([kept(before[style], after[style], "style") for style in styles])
    styles_kept = np.mean([kept(before[style], after[style], "style") for style in others])
    objects_kept = np.mean([kept(before[style], after[style], "object") for style in STYLES])
    both = (styles_kept + objects_kept) / 2
    return {
        "erased": round(float(erased), 4),
        "left": {style: after[style].share("style", style) for style in styles},
        "none": round(float(np.mean([after[style].share("style", NONE) for style in styles])), 4),
        "kept_styles": round(float(styles_kept), 4),
        "kept_objects": round(float(objects_kept), 4),
        "score": round(float(np.mean([score(bench, images_of(styles)[style], after[style]) for style in others])), 2),
        "harmonic": round(float(2 * erased * both / (erased + both)), 4) if erased + both else 0.0,
    }


def score(bench: Bench, pictures: Sequence[Picture], reading: Reading) -> float:
    """Mean CLIP-Score of the pictures' images against their own prompts."""
    texts = [picture.prompt for picture in pictures for _ in range(picture.count)]
    return bench.scorer.score(reading.images.movedim(1, -1), texts).mean().item()


def images_of(styles: Sequence[str]) -> dict[str, list[Picture]]:
    """Held-out prompts: 24 images of every style that is removed, 12 of every other one."""
    return {style: styled_pictures(style, 2, 2 if style in styles else 1) for style in STYLES}


def few_images_of(style: str) -> dict[str, list[Picture]]:
    """Half as many, where four choices are compared."""
    return {one: styled_pictures(one, 2 if one == style else 1, 1) for one in STYLES}


def total(pictures: Sequence[Picture]) -> int:
    return sum(picture.count for picture in pictures)


def compare(bench: Bench) -> list[dict]:
    rows = []
    for styles in GROUPS:
        before = bench.read_unedited(images_of(styles))
        for method in METHODS:
            row = {"styles": list(styles), "method": method, **evaluate(bench, method, styles, before)}
            rows.append(row)
            say(json.dumps(row))
    return rows


def compare_tokens(bench: Bench) -> list[dict]:
    """Ours with every choice of tokens, for three styles and for facts; "erased" flags are those of the new country."""
    rows = []
    flags = {country: [replace(picture, count=1) for picture in flag_pictures(country)] for country in COUNTRIES}
    flags_before = bench.read_unedited(flags)
    for tokens in Tokens:
        for style in list(STYLES)[:3]:
            pictures = few_images_of(style)
            before = bench.read_unedited(pictures)
            with bench.engine.edited(solve_edit(bench.encode, bench.recipe((style,), tokens))):
                after = {one: bench.read(group) for one, group in pictures.items()}
            others = [kept(before[one], after[one], "style") for one in STYLES if one != style]
            erased = 1 - kept(before[style], after[style], "style")
            rows.append(tokens_row(tokens, style, erased, others))
        for country in COUNTRIES:
            asked = fact_edit(country)
            request = EditRequest(asked.concept, asked.target, "\n".join(asked.preserve), Attribute.FACT)
            recipe = edit_recipe(request, EditSettings(tokens), FACT_LAYERS, bench.engine.text_encoder)
            with bench.engine.edited(solve_edit(bench.encode, recipe)):
                after = {one: bench.read(pictures) for one, pictures in flags.items()}
            new = asked.target.rsplit(" ", 1)[1]
            others = [kept(flags_before[one], after[one], "fact") for one in COUNTRIES if one != country]
            rows.append(tokens_row(tokens, country, after[country].share("fact", new), others))
    return rows


def tokens_row(tokens: Tokens, edit: str, erased: float, others: Sequence[float]) -> dict:
    row = {"tokens": tokens, "edit": edit, "erased": round(float(erased), 4), "kept": round(float(np.mean(others)), 4)}
    say(json.dumps(row))
    return row


def harmonic(rows: Sequence[dict], count: int) -> dict[str, float]:
    """Mean over the groups of `count` styles of the harmonic mean of erased and kept, by method."""
    return {method: round(mean_of(rows, method, count, "harmonic"), 4) for method in METHODS}


def mean_of(rows: Sequence[dict], method: str, count: int, name: str) -> float:
    chosen = [row[name] for row in rows if row["method"] == method and len(row["styles"]) == count]
    return float(np.mean(chosen))


def plot(rows: Sequence[dict]) -> np.ndarray:
    """Erased and kept by method, for one, three and five styles removed at once. Returns uint8 [H, W, 3]."""
    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    for axes, count in zip(figure.subplots(1, 3, sharey=True), (1, 3, 5), strict=True):
        for offset, (name, colour) in enumerate(COLOURS.items()):
            values = [mean_of(rows, method, count, name) for method in METHODS]
            places = np.arange(len(METHODS)) + 0.26 * (offset - 1)
            axes.bar(places, values, 0.24, color=colour, label=name.replace("_", " "))
        axes.set_title(f"{count} style{'s' if count > 1 else ''} removed", fontsize=10)
        axes.set_xticks(range(len(METHODS)), METHODS)
        axes.set_ylim(0, 1.04)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return drawn(figure)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", action="store_true", help="compare the choices of tokens instead of the methods")
    bench = Bench()
    if parser.parse_args().tokens:
        write_text(RESULTS / "edit_tokens.json", json.dumps(compare_tokens(bench), indent=1) + "\n")
        return
    costs = {shape: solve_time.measure(shape) for shape in solve_time.SHAPES}
    for shape, by_method in costs.items():
        say(f"{shape}: {json.dumps(by_method)}")
    modes, effect = None, None
    if os.environ.get("COMFYUI_PATH"):
        from demo.server import Server

        with tempfile.TemporaryDirectory() as folder:
            with Server(Path(os.environ["COMFYUI_PATH"]), Path(folder)) as server:
                modes, effect = modes_difference(server)
        say(f"modes: {modes:.1e} apart, effect {effect:.2f} of the latent")
    preserved = max(bench.preservation_error(solve_edit(bench.encode, bench.recipe((style,)))) for style in STYLES)
    rows = compare(bench)
    sdxl = costs["sdxl"]
    summary = {
        "harmonic": harmonic(rows, 1),
        "harmonic_5": harmonic(rows, 5),
        "solve_seconds_sdxl": sdxl["ours"]["seconds"],
        "solve_speedup_sdxl": round(sdxl["authors"]["seconds"] / sdxl["ours"]["seconds"], 1),
        "preservation_error": preserved,
        "modes_difference": modes,
    }
    content = {"summary": summary, "costs": costs, "modes_effect": effect, "edits": rows}
    write_text(RESULTS / "edit.json", json.dumps(content, indent=1) + "\n")
    write_picture(RESULTS / "edit.png", plot(rows))
    say(json.dumps(summary))


if __name__ == "__main__":
    main()
