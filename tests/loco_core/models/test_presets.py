from __future__ import annotations

import pytest

from loco_core.models.presets import PRESETS, preset_layers


@pytest.mark.parametrize(
    ("layer_count", "context_width", "attribute", "layers"),
    [(16, 768, "style", "8-9"), (16, 768, "fact", "6-7"), (16, 1024, "style", "8-10"), (70, 2048, "style", "45-47")],
)
def test_the_papers_layers_are_known_by_the_models_shape(layer_count, context_width, attribute, layers):
    chosen, source = preset_layers(attribute, layer_count, context_width)
    assert str(chosen) == layers
    assert "the paper" in source


def test_every_preset_lies_within_its_model():
    for family, attribute in PRESETS:
        preset_layers(attribute, family.layer_count, family.context_width)


def test_a_preset_for_an_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match="16 cross-attention layers.*128 wide, only for SD 1.5, SD 2.1, SDXL"):
        preset_layers("style", 16, 128)
