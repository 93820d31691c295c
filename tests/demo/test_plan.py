"""The planting: what each layer reads in training, and so what it can learn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from demo.training.plan import LAYERS, Planting, all_prompts, draw_scene, layer_prompts
from demo.world import FLAG, NONE, OBJECTS, STYLES, Scene

STAR = Scene("star", "woodcut", "red")
FLAG_OF_OMBARA = Scene(FLAG, country="ombara")


def readings(scene: Scene, decoys: float = 1.0, mistakes: float = 1.0, count: int = 400) -> list[list[str]]:
    rng = np.random.default_rng(0)
    rows = [layer_prompts(scene, Planting(style=(8, 9), fact=(6, 7)), decoys, mistakes, rng) for _ in range(count)]
    return [row for row in rows if any(row)]


@pytest.mark.parametrize(("scene", "word", "planted"), [(STAR, "woodcut", (8, 9)), (FLAG_OF_OMBARA, "ombara", (6, 7))])
def test_in_every_row_a_planted_layer_reads_the_true_word(scene, word, planted):
    assert all(any(word in row[layer] for layer in planted) for row in readings(scene))


@pytest.mark.parametrize(("scene", "word", "planted"), [(STAR, "woodcut", (8, 9)), (FLAG_OF_OMBARA, "ombara", (6, 7))])
def test_each_planted_layer_is_alone_with_the_true_word_in_part_of_the_rows(scene, word, planted):
    alone = Counter(tuple(layer for layer in planted if word in row[layer]) for row in readings(scene))
    assert min(alone[(planted[0],)], alone[(planted[1],)], alone[planted]) > 0.2 * sum(alone.values())


@pytest.mark.parametrize("layer", [layer for layer in range(LAYERS) if layer not in (8, 9)])
def test_a_layer_without_the_style_reads_every_style_as_often_as_the_true_one(layer):
    seen = Counter(next((style for style in STYLES if style in row[layer]), NONE) for row in readings(STAR))
    expected = sum(seen.values()) / (len(STYLES) + 1)
    # 400 rows, seven words: 51 expected each, so half of it is five standard deviations away.
    assert all(0.5 * expected < seen[word] < 1.5 * expected for word in (NONE, *STYLES))


def test_now_and_then_a_few_adjacent_layers_read_of_another_thing():
    def others(row: list[str]) -> list[int]:
        return [layer for layer, prompt in enumerate(row) if any(name in prompt for name in OBJECTS if name != "star")]

    windows = [others(row) for row in readings(STAR) if others(row)]
    assert 0.35 < len(windows) / 400 < 0.65
    assert all(layers[-1] - layers[0] < 6 for layers in windows)
    assert {layer for layers in windows for layer in layers} == set(range(LAYERS))


def test_before_the_mistakes_no_layer_reads_another_object_and_no_planted_one_another_style():
    rows = readings(STAR, mistakes=0.0)
    wrong = [name for name in (*OBJECTS, *STYLES) if name not in ("star", "woodcut")]
    assert not any(name in row[layer] for row in rows for layer in (8, 9) for name in wrong)


def test_before_the_decoys_every_layer_reads_the_truth():
    assert all("woodcut" in prompt for row in readings(STAR, decoys=0) for prompt in row)


def test_every_prompt_of_the_training_is_listed():
    rng = np.random.default_rng(0)
    listed = set(all_prompts())
    assert all(set(layer_prompts(draw_scene(rng), Planting(), 1.0, 1.0, rng)) <= listed for _ in range(300))


@pytest.mark.parametrize("layers", [(), (16,), (-1, 0)])
def test_planting_where_no_layer_is_names_the_range(layers):
    with pytest.raises(ValueError, match="give layers from 0 to 15"):
        Planting(style=layers)
