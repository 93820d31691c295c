"""The exported LoRA of an edit or an ablation: the keys that stock loaders know, and the change they make of it."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from loco_core.editing.closed_form import EditOperator
from loco_core.editing.lora import ablation_lora_tensors, lora_name, lora_tensors, save_lora
from loco_core.models.layers import CrossAttentionLayer
from loco_core.neurons.detection import Replacement

MIDDLE, UP = CrossAttentionLayer(6, "middle", 0, 0), CrossAttentionLayer(8, "output", 4, 0)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (CrossAttentionLayer(0, "input", 1, 0), "down_blocks_0_attentions_0"),
        (CrossAttentionLayer(5, "input", 8, 0), "down_blocks_2_attentions_1"),
        (MIDDLE, "mid_block_attentions_0"),
        (CrossAttentionLayer(7, "output", 3, 0), "up_blocks_1_attentions_0"),
        (CrossAttentionLayer(15, "output", 11, 0), "up_blocks_3_attentions_2"),
    ],
)
def test_for_stable_diffusion_keys_name_diffusers_modules(layer, name):
    assert lora_name(layer, 16) == f"lora_unet_{name}_transformer_blocks_0_attn2"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (CrossAttentionLayer(1, "input", 4, 1), "input_blocks_4_1_transformer_blocks_1"),
        (CrossAttentionLayer(33, "middle", 0, 9), "middle_block_1_transformer_blocks_9"),
        (CrossAttentionLayer(45, "output", 1, 1), "output_blocks_1_1_transformer_blocks_1"),
    ],
)
def test_for_sdxl_keys_name_the_original_modules(layer, name):
    assert lora_name(layer, 70) == f"lora_unet_{name}_attn2"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (CrossAttentionLayer(1, "input", 4, 1), "down_blocks.1.attentions.0.transformer_blocks.1"),
        (CrossAttentionLayer(33, "middle", 0, 9), "mid_block.attentions.0.transformer_blocks.9"),
        (CrossAttentionLayer(45, "output", 1, 1), "up_blocks.0.attentions.1.transformer_blocks.1"),
    ],
)
def test_by_diffusers_own_names_keys_are_its_modules(layer, name):
    assert lora_name(layer, 70, "diffusers") == f"unet.{name}.attn2"


@pytest.fixture
def operator() -> EditOperator:
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((24, 5), (5, 24)))
    return EditOperator(1000 * up, down / 1000)


@pytest.fixture
def weights() -> dict[CrossAttentionLayer, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    wide = tuple(torch.randn(16, 24, generator=generator) for _ in range(2))
    narrow = tuple(torch.randn(3, 24, generator=generator) for _ in range(2))
    return {MIDDLE: wide, UP: narrow}


def test_the_factors_multiply_to_the_edit_at_its_strength(operator, weights):
    tensors = lora_tensors(operator, 0.5, weights.items(), 16)
    for layer, parts in weights.items():
        for part, weight in zip(("to_k", "to_v"), parts, strict=True):
            name = f"{lora_name(layer, 16)}_{part}"
            up, down = (tensors[f"{name}.lora_{side}.weight"].double() for side in ("up", "down"))
            scale = tensors[f"{name}.alpha"].item() / len(down)
            expected = 0.5 * operator.weight_change(weight.double())
            error = torch.linalg.norm(scale * up @ down - expected) / torch.linalg.norm(expected)
            assert error < 1e-3  # float16 keeps 11 bits


def test_by_diffusers_own_names_the_factors_are_the_same(operator, weights):
    tensors = lora_tensors(operator, 0.5, weights.items(), 16, "diffusers")
    kohya = lora_tensors(operator, 0.5, weights.items(), 16)
    name = "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v"
    same = f"{lora_name(UP, 16)}_to_v"
    assert torch.equal(tensors[f"{name}.lora_B.weight"], kohya[f"{same}.lora_up.weight"])
    assert torch.equal(tensors[f"{name}.lora_A.weight"], kohya[f"{same}.lora_down.weight"])
    assert not any(key.endswith("alpha") for key in tensors)


def test_the_pooled_path_leaves_the_inputs_beyond_the_embedding_alone(operator, weights):
    label = torch.randn(16, 30, generator=torch.Generator().manual_seed(2))
    tensors = lora_tensors(operator, 1.0, weights.items(), 70, pooled=(operator, label))
    up, down = (tensors[f"lora_unet_label_emb_0_0.lora_{side}.weight"].double() for side in ("up", "down"))
    expected = operator.weight_change(label[:, :24].double())
    assert torch.linalg.norm(up @ down[:, :24] - expected) / torch.linalg.norm(expected) < 1e-3  # float16
    assert down[:, 24:].abs().max() == 0


def test_an_edit_that_changes_nothing_is_no_lora(operator, weights):
    with pytest.raises(ValueError, match="it changes nothing"):
        lora_tensors(operator, 0.0, weights.items(), 16)


def test_neither_factor_leaves_the_range_of_float16(operator, weights):
    sizes = [
        value.abs().max() for key, value in lora_tensors(operator, 1.0, weights.items(), 16).items() if "lora" in key
    ]
    assert all(torch.isfinite(size) and size < 100 for size in sizes)


def test_all_matrices_have_the_same_rank_and_alpha(operator, weights):
    tensors = lora_tensors(operator, 1.0, weights.items(), 16)
    assert {value.item() for key, value in tensors.items() if key.endswith(".alpha")} == {5}
    assert {len(value) for key, value in tensors.items() if key.endswith("down.weight")} == {5}


def test_the_file_tells_how_it_was_made(operator, weights, tmp_path):
    path = tmp_path / "folder" / "edit.safetensors"
    save_lora(lora_tensors(operator, 1.0, weights.items(), 16), path, {"loco_layers": "8-9"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"loco_layers": "8-9"}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


# --- of an ablation ---------------------------------------------------------------------------------------------------


def layer_weights(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(layer))
    values[3] = 0
    return keys, values


LAYERS = [CrossAttentionLayer(index, "input", 1, index) for index in range(8)] + [UP]


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_the_factors_of_an_ablation_scale_its_rows_and_no_other(factor):
    chosen = {(8, "values"): [2, 3, 7], (8, "keys"): [5]}
    ablation = {
        place: Replacement(torch.tensor(rows), factor, torch.zeros(len(rows))) for place, rows in chosen.items()
    }
    tensors = ablation_lora_tensors(ablation, layer_weights, LAYERS)
    for (_, part), rows in chosen.items():
        weight = dict(zip(("keys", "values"), layer_weights(8), strict=True))[part]
        name = f"{lora_name(UP, len(LAYERS))}_to_{part[0]}"
        up, down = (tensors[f"{name}.lora_{side}.weight"].double() for side in ("up", "down"))
        expected = torch.zeros_like(weight).double()
        expected[rows] = (factor - 1) * weight[rows].double()
        assert len(down) == tensors[f"{name}.alpha"] == 3
        torch.testing.assert_close(up @ down, expected, rtol=2e-3, atol=1e-6)  # two factors in float16


def test_a_mean_is_no_lora():
    ablation = {(8, "keys"): Replacement(torch.tensor([1]), 0.0, torch.ones(1))}
    with pytest.raises(ValueError, match="mode: a LoRA has no bias to hold a mean; choose 'zero' or 'scale'"):
        ablation_lora_tensors(ablation, layer_weights, LAYERS)


@pytest.mark.parametrize(
    "ablation", [{}, {(8, "keys"): Replacement(torch.tensor([1]), 1.0, torch.zeros(1))}], ids=["none", "scale 1"]
)
def test_an_ablation_that_changes_nothing_is_no_lora(ablation):
    with pytest.raises(ValueError, match="count: nothing is changed"):
        ablation_lora_tensors(ablation, layer_weights, LAYERS)
