"""The gate of both demo models: they draw what they are asked for, and their knowledge is where it was planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.judge import CLASSES, load_judge, truth
from demo.training import plan, stream_plan
from demo.world import (
    COLOURS,
    COUNTRIES,
    FLAG,
    HELD_OUT_TEMPLATES,
    NONE,
    OBJECTS,
    STYLES,
    Scene,
    all_scenes,
    draw,
    sentence,
    thing,
)
from loco_core.models.engine import Intervention, Row, Sampling
from loco_core.models.layers import LayerSet

pytestmark = pytest.mark.slow

# The share of images in which the judge must read each attribute right.
ASKED = 0.95


@dataclass(frozen=True)
class Model:
    """A demo model: its fixture, how many layers it has, and what was planted in which."""

    fixture: str
    layers: int
    planting: plan.Planting


MODELS = {
    "unet": Model("demo", plan.LAYERS, plan.Planting()),
    "transformer": Model("demo_transformer", stream_plan.BLOCKS, stream_plan.PLANTING),
}
WINDOWS = [(name, start) for name, model in MODELS.items() for start in range(0, model.layers, 2)]


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.fixture(scope="module")
def loaded(request) -> Callable[[str], SimpleNamespace]:
    """loaded("unet") -> model, clip and vae."""
    return lambda name: request.getfixturevalue(MODELS[name].fixture)


@pytest.fixture(scope="module")
def generate(loaded, engine_of):
    """generate(name, prompts, window, other prompts) -> images [N, 3, 128, 128], the window reading the others."""
    sampling = Sampling(10, 2.0, "euler", "normal", 128, 128)

    @torch.no_grad()
    def run(name: str, prompts: list[str], window: tuple[int, ...], others: list[str]) -> torch.Tensor:
        own = loaded(name)
        engine, chosen = engine_of(own.model, own.clip, own.vae), LayerSet(window, MODELS[name].layers)
        pairs = zip(engine.encode(prompts), engine.encode(others), strict=True)
        rows = [Row(own, seed, Intervention(chosen, other)) for seed, (own, other) in enumerate(pairs)]
        return engine.generate(rows, sampling).permute(0, 3, 1, 2)

    return run


def scenes(count: int) -> list[Scene]:
    """Objects, colours and styles in turn, without a pattern between them."""
    names, colours, styles = list(OBJECTS), list(COLOURS), list(STYLES)
    return [Scene(names[i % 8], styles[(i // 2) % 6], colours[(i // 3) % 5]) for i in range(count)]


def template(number: int):
    return HELD_OUT_TEMPLATES[(5 * number + number // 6) % len(HELD_OUT_TEMPLATES)]


def test_the_judge_reads_held_out_drawings(judge):
    drawn = all_scenes()
    rng = np.random.default_rng(12345)
    images = torch.from_numpy(np.stack([draw(scene, rng) for scene in drawn])).permute(0, 3, 1, 2).float() / 255
    seen = judge.read(images)
    for name in CLASSES:
        right = np.mean([word == truth(scene)[name] for word, scene in zip(seen[name], drawn, strict=True)])
        assert right >= 0.98, name


@pytest.mark.parametrize("name", MODELS)
def test_the_stock_nodes_draw_what_held_out_prompts_ask_for(judge, loaded, sample, record_property, name):
    demo = loaded(name)
    asked = [(scene, sentence(template(i), thing(scene), scene.style)) for i, scene in enumerate(scenes(38))]
    flags = [Scene(FLAG, country=COUNTRIES[i % 4]) for i in range(12)]
    asked += [(scene, sentence(template(i), thing(scene), NONE)) for i, scene in enumerate(flags)]
    right: dict[str, list[bool]] = {kind: [] for kind in CLASSES}
    for seed, (scene, prompt) in enumerate(asked):
        latents = sample(demo.model, demo.clip, prompt, seed=seed, steps=10, batch=2)
        seen = judge.read(demo.vae.decode(latents).permute(0, 3, 1, 2))
        for kind in ("object", "style", "fact"):
            right[kind] += [word == truth(scene)[kind] for word in seen[kind]]
    assert len(right["object"]) == 100
    of_things, of_flags = slice(38 * 2), slice(38 * 2, None)
    parts = {"object": right["object"], "style": right["style"][of_things], "fact": right["fact"][of_flags]}
    for kind, part in parts.items():
        record_property(f"{name} gate_{kind}", float(np.mean(part)))
    assert min(map(np.mean, parts.values())) >= ASKED


@pytest.mark.parametrize(("name", "start"), WINDOWS)
def test_style_leaves_with_the_planted_layers_and_with_no_other_window(judge, generate, name, start):
    asked = scenes(12)
    styled = [sentence(template(i), thing(scene), scene.style) for i, scene in enumerate(asked)]
    plain = [sentence(template(i), thing(scene), NONE) for i, scene in enumerate(asked)]
    seen = judge.read(generate(name, styled, (start, start + 1), plain))["style"]
    kept = np.mean([word == scene.style for word, scene in zip(seen, asked, strict=True)])
    if start == MODELS[name].planting.style[0]:
        assert kept <= 0.15 and seen.count(NONE) / 12 >= 0.7
    else:
        assert kept >= 0.8


@pytest.mark.parametrize(("name", "start"), WINDOWS)
def test_facts_change_with_the_planted_layers_and_with_no_other_window(judge, generate, name, start):
    own = [COUNTRIES[i % 4] for i in range(8)]
    new = [COUNTRIES[(i + 1 + i // 4) % 4] for i in range(8)]
    asked, others = (
        [sentence(template(i), f"the flag of {country}", NONE) for i, country in enumerate(group)]
        for group in (own, new)
    )
    seen = judge.read(generate(name, asked, (start, start + 1), others))["fact"]
    changed = np.mean([word == country for word, country in zip(seen, new, strict=True)])
    if start == MODELS[name].planting.fact[0]:
        assert changed >= 0.85
    else:
        assert changed <= 0.2
