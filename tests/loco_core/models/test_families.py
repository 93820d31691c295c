"""What a family says of its models: names, the paper's layers, keys of LoRA files, where its blocks stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loco_core.models.families.cosmos import ANIMA
from loco_core.models.families.deepfloyd import DEEPFLOYD
from loco_core.models.families.joint import FLUX
from loco_core.models.families.unet import SHAPES, UNET
from loco_core.models.family import Naming
from loco_core.models.layers import ModelLayers, Part, TextLayer
from made_up import SD15, SDXL, unet


@pytest.mark.parametrize(
    ("layers", "width", "attribute", "expected"),
    [
        (SD15, 768, "style", "8-9"),
        (SD15, 768, "fact", "6-7"),
        (SD15, 1024, "style", "8-10"),
        (SDXL, 2048, "style", "45-47"),
    ],
)
def test_the_papers_layers_are_known_by_the_models_shape(layers, width, attribute, expected):
    chosen, preset = replace(layers, width=width).preset(attribute)
    assert str(chosen) == expected
    assert "the paper" in preset.source
    assert str(preset) == f"{preset.model}, {attribute}: {expected} ({preset.source})"


def test_every_preset_lies_within_its_model():
    counts = {name: count for (count, _), name in SHAPES.items()}
    for preset in UNET.presets:
        assert 0 <= preset.first < preset.first + preset.window_size <= counts[preset.model]


def test_a_preset_for_an_unknown_model_names_the_known_ones():
    with pytest.raises(ValueError, match="16 cross-attention layers.*128 wide, only for SD 1.5, SD 2.1, SDXL"):
        replace(SD15, width=128).preset("style")


def test_a_preset_for_an_unknown_attribute_lists_the_known_ones():
    with pytest.raises(ValueError, match="attribute: 'mood'; give one of style, object, fact"):
        replace(SD15, width=768).preset("mood")


@pytest.mark.parametrize(
    ("layers", "width", "name"),
    [
        (SD15, 768, "SD 1.5"),
        (SD15, 1024, "SD 2.1"),
        (SDXL, 2048, "SDXL"),
        (SDXL, 32, "a model with 70 cross-attention layers and embeddings 32 wide"),
    ],
)
def test_a_model_is_named_by_its_shape(layers, width, name):
    assert replace(layers, width=width).model_name == name


def test_deepfloyd_is_named_and_has_projections_of_its_own():
    layers = replace(SD15, family=DEEPFLOYD)
    assert layers.model_name == "DeepFloyd IF"
    assert layers.projection(3, Part.VALUES) == f"{layers.modules[3]}.add_v_proj"


# --- keys of LoRA files -----------------------------------------------------------------------------------------------


def key(layers: ModelLayers, index: int, naming: Naming) -> str:
    return UNET.lora_key(layers[index], Part.KEYS, layers, naming)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "down_blocks.0.attentions.0"),
        (5, "down_blocks.2.attentions.1"),
        (6, "mid_block.attentions.0"),
        (7, "up_blocks.1.attentions.0"),
        (15, "up_blocks.3.attentions.2"),
    ],
)
def test_for_stable_diffusion_keys_name_diffusers_modules_in_both_namings(index, name):
    attention = f"{name}.transformer_blocks.0.attn2"
    assert key(SD15, index, Naming.KOHYA) == f"lora_unet_{attention.replace('.', '_')}_to_k"
    assert key(SD15, index, Naming.DIFFUSERS) == f"unet.{attention}.processor.to_k_lora"


@pytest.mark.parametrize(
    ("index", "original", "diffusers"),
    [
        (1, "input_blocks_4_1_transformer_blocks_1", "down_blocks.1.attentions.0.transformer_blocks.1"),
        (33, "middle_block_1_transformer_blocks_9", "mid_block.attentions.0.transformer_blocks.9"),
        (45, "output_blocks_1_1_transformer_blocks_1", "up_blocks.0.attentions.1.transformer_blocks.1"),
    ],
)
def test_for_sdxl_keys_name_the_original_modules_or_diffusers_own(index, original, diffusers):
    assert key(SDXL, index, Naming.KOHYA) == f"lora_unet_{original}_attn2_to_k"
    assert key(SDXL, index, Naming.DIFFUSERS) == f"unet.{diffusers}.attn2.processor.to_k_lora"


# Of KOALA: one ResNet to a level.
KOALA = unet(
    ("input", 3, 2),
    ("input", 5, 5),
    *(("output", number, 5 - 3 * (number > 1)) for number in range(4)),
    levels=(1, 1, 1),
)


@pytest.mark.parametrize(
    ("index", "block"),
    [
        (0, "down_blocks.1.attentions.0"),
        (2, "down_blocks.2.attentions.0"),
        (7, "up_blocks.0.attentions.0"),
        (12, "up_blocks.0.attentions.1"),
        (17, "up_blocks.1.attentions.0"),
        (19, "up_blocks.1.attentions.1"),
    ],
)
def test_diffusers_blocks_are_counted_by_the_resnets_that_a_level_has(index, block):
    assert key(KOALA, index, Naming.DIFFUSERS).startswith(f"unet.{block}.transformer_blocks.0.")


def test_a_layer_beyond_the_models_levels_is_refused():
    with pytest.raises(ValueError, match=r"its layer output 12.0 is in none of its levels, of \(2, 2, 2, 2\) ResNets"):
        key(unet(("output", 12, 1), levels=(2, 2, 2, 2)), 0, Naming.DIFFUSERS)


@pytest.mark.parametrize("naming", Naming)
@pytest.mark.parametrize("layers", [SD15, SDXL, KOALA], ids=["SD 1.5", "SDXL", "KOALA"])
def test_every_weight_has_a_key_of_its_own(layers, naming):
    keys = {UNET.lora_key(layer, part, layers, naming) for layer in layers for part in Part.BOTH.projections}
    assert len(keys) == 2 * len(layers)


# --- metadata of LoRA files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "version", "architecture", "size"),
    [
        (replace(SD15, width=768), "sd_v1", "stable-diffusion-v1/lora", "512x512"),
        (replace(SD15, width=1024), "sd_v2", "stable-diffusion-v2-512/lora", "512x512"),
        (replace(SD15, width=1024, predicts_v=True), "sd_v2_v", "stable-diffusion-v2-768-v/lora", "768x768"),
        (replace(SDXL, width=2048), "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "1024x1024"),
    ],
    ids=["SD 1.5", "SD 2", "SD 2 with v-prediction", "SDXL"],
)
def test_managers_of_loras_are_told_which_model_a_file_is_for(layers, version, architecture, size):
    told = UNET.lora_metadata(layers, Naming.KOHYA)
    assert told["ss_base_model_version"] == version
    assert told["ss_v2"] == str(version.startswith("sd_v2"))  # by which Forge tells Stable Diffusion 2 from 1
    assert told["modelspec.architecture"] == architecture
    assert told["modelspec.resolution"] == size
    assert told["modelspec.prediction_type"] == ("v" if layers.predicts_v else "epsilon")


@pytest.mark.parametrize("layers", [SD15, SDXL, replace(KOALA, width=2048)], ids=["narrow", "narrow SDXL", "KOALA"])
def test_of_a_model_that_is_not_known_nothing_is_told(layers):
    assert UNET.lora_metadata(layers, Naming.KOHYA) == {}


@pytest.mark.parametrize(
    ("layers", "naming", "implementation"),
    [
        (replace(SD15, width=768), Naming.KOHYA, "diffusers"),
        (replace(SDXL, width=2048), Naming.KOHYA, "https://github.com/Stability-AI/generative-models"),
        (replace(SDXL, width=2048), Naming.DIFFUSERS, "diffusers"),
    ],
)
def test_the_implementation_is_the_code_whose_modules_the_keys_name(layers, naming, implementation):
    assert UNET.lora_metadata(layers, naming)["modelspec.implementation"] == implementation


# --- the picture of the model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_the_floor_plan_has_every_layer_once_in_a_block_that_a_person_can_write_down(layers):
    plan = layers.family.floor_plan(layers)
    assert sorted(index for block in plan.blocks for index in block.indices) == list(range(len(layers)))
    assert all(layers.parse(block.name).indices == block.indices for block in plan.blocks)
    assert len({(block.column, block.row) for block in plan.blocks}) == len(plan.blocks)


def test_the_floor_plan_goes_down_on_the_left_and_up_on_the_right():
    plan = UNET.floor_plan(SDXL)
    places = {block.name: (block.column, block.row) for block in plan.blocks}
    assert [places[f"d{number}"] for number in range(4)] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert [places[f"u{number}"] for number in range(6)] == [(1, 5), (1, 4), (1, 3), (1, 2), (1, 1), (1, 0)]
    assert places["m0"][1] > plan.rows - 1  # below all others
    assert (plan.rows, plan.widest) == (6, 10)
    assert {heading.text for heading in plan.headings} == {"down", "middle", "up"}


def test_a_search_for_the_window_size_begins_wider_in_a_larger_model():
    assert UNET.first_window_size(len(SD15)) == 2
    assert UNET.first_window_size(len(SDXL)) == 3


def test_a_model_without_a_middle_block_has_a_floor_plan_too():
    layers = unet(("input", 1, 2), ("output", 0, 1))
    assert [block.name for block in UNET.floor_plan(layers).blocks] == ["d0", "u0"]


# --- transformers -----------------------------------------------------------------------------------------------------


def stack(family, **kinds: int) -> ModelLayers:
    """The layers of a transformer, by how many blocks it has of each kind."""
    places = [(kind, number) for kind, count in kinds.items() for number in range(count)]
    layers = tuple(TextLayer(index, *place, 0) for index, place in enumerate(places))
    modules = tuple(f"diffusion_model.{kind}s.{number}" for kind, number in places)
    return ModelLayers(layers, modules, 64, family)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("double 5", (5,)),
        ("double_blocks.5", (5,)),
        ("single 0-2", (19, 20, 21)),
        ("d18, s0", (18, 19)),
        ("30", (30,)),
        ("all", tuple(range(57))),
    ],
)
def test_blocks_of_a_transformer_are_written_down_by_kind_or_by_index(entry, expected):
    assert stack(FLUX, double=19, single=38).parse(entry).indices == expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("double 19", "layers: 'double 19' does not exist; this model has double blocks 0 to 18"),
        ("m0", "layers: 'm0' is not understood; give indices like '8-9'"),
        ("57", "layers: '57' does not exist; this model has layers 0 to 56"),
    ],
)
def test_blocks_that_a_transformer_lacks_are_refused(entry, message):
    with pytest.raises(ValueError) as raised:
        stack(FLUX, double=19, single=38).parse(entry)
    assert message in str(raised.value)


def test_a_block_of_a_transformer_is_named_in_words_that_are_understood():
    layers = stack(FLUX, double=19, single=38)
    assert all(layers.parse(layers.block_name(index)).indices == (index,) for index in range(57))


def test_several_blocks_of_a_transformer_are_named_as_ranges_of_a_kind():
    layers = stack(FLUX, double=19, single=38)
    chosen = layers.parse("7-20, 30")
    assert layers.block_names(chosen) == "double 7-18, single 0-1, single 11"
    assert layers.parse(layers.block_names(chosen)) == chosen


def test_the_blocks_of_a_transformer_stand_in_rows_of_one_kind_in_forward_order():
    layers = stack(FLUX, double=12, single=1)
    plan = layers.family.floor_plan(layers)
    assert [(block.name, block.row, block.indices) for block in plan.blocks] == [
        ("d0-9", 0, tuple(range(10))),
        ("d10-11", 1, (10, 11)),
        ("s0", 2, (12,)),
    ]
    assert plan.rows == 3 and not plan.both_ways


def test_a_transformer_has_no_layers_of_the_paper():
    with pytest.raises(ValueError, match="^preset: the paper has none for Anima; write the layers down, or find them"):
        stack(ANIMA, block=28).preset("style")


def test_blocks_that_change_the_text_have_no_projection_of_its_embedding():
    with pytest.raises(ValueError, match="^model: the blocks of Flux.1 get the text as other parts"):
        stack(FLUX, double=19, single=38).projection(0, Part.KEYS)
