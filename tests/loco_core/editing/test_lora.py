"""The exported LoRA of an edit: the change that stock loaders make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from loco_core.editing.closed_form import EditOperator
from loco_core.editing.file import load_edit, save_edit
from loco_core.editing.lora import AUTO, edit_lora, of_rank
from loco_core.editing.solve import Edit, solve_edit
from loco_core.lora_file import save_lora
from loco_core.models.family import Naming
from loco_core.models.layers import PROJECTIONS, LayerSet, Part
from made_up import SD15, SDXL, WIDTH, edit_of, encode, recipe, shared_operator

CHOSEN = LayerSet((6, 8), 16)


def key(index: int, projection: Part, naming: Naming = Naming.KOHYA) -> str:
    return SD15.family.lora_key(SD15[index], projection, SD15, naming)


def change(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """What a LoRA's factors multiply to."""
    up, down = (tensors[f"{name}.lora_{side}.weight"].double() for side in ("up", "down"))
    return tensors[f"{name}.alpha"].item() / len(down) * up @ down


@pytest.fixture
def operator() -> EditOperator:
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((32, 5), (5, 32)))
    return EditOperator(1000 * up, down / 1000)


@pytest.fixture
def edit(operator) -> Edit:
    return edit_of(operator, CHOSEN)


def weights(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a wide layer in the middle, and of a narrow one."""
    keys, values = torch.randn(2, 16 if layer == 6 else 3, 32, generator=torch.Generator().manual_seed(layer))
    return keys, values


def test_the_factors_multiply_to_the_edit_at_its_strength(operator, edit):
    tensors = edit_lora(edit, SD15, weights, 0.5)
    for layer in CHOSEN:
        for projection, weight in zip(PROJECTIONS, weights(layer), strict=True):
            expected = 0.5 * operator.weight_change(weight.double())
            error = torch.linalg.norm(change(tensors, key(layer, projection)) - expected)
            assert error / torch.linalg.norm(expected) < 1e-3  # float16 keeps 11 bits


def test_an_edit_with_an_operator_for_each_layer_is_saved_loaded_and_exported_as_such(operator, edit, tmp_path):
    own = {6: operator, 8: EditOperator(operator.up[:, :2], operator.down[3:])}
    save_edit(replace(edit, operators=own), tmp_path / "edit.safetensors", {})
    loaded = load_edit(tmp_path / "edit.safetensors")
    for layer, expected in own.items():
        assert torch.equal(loaded.operators[layer].up, expected.up)
        assert torch.equal(loaded.operators[layer].down, expected.down)
    tensors = edit_lora(loaded, SD15, weights)
    for layer, expected in own.items():
        for projection, weight in zip(PROJECTIONS, weights(layer), strict=True):
            wanted = expected.weight_change(weight.double())
            error = torch.linalg.norm(change(tensors, key(layer, projection)) - wanted)
            assert error / torch.linalg.norm(wanted) < 1e-3  # float16


def test_layers_that_share_an_operator_share_it_in_the_file_and_when_loaded(operator, edit, tmp_path):
    own = EditOperator(operator.up[:, :2], operator.down[3:])
    layers = LayerSet((6, 7, 8), 16)
    save_edit(replace(edit_of(operator, layers), operators={6: own, 7: operator, 8: own}), tmp_path / "edit", {})
    loaded = load_edit(tmp_path / "edit").operators
    assert loaded[6] is loaded[8]
    assert loaded[6] is not loaded[7]
    with safe_open(tmp_path / "edit", "pt") as file:
        assert len(file.keys()) == 2 * 2


def test_by_diffusers_own_names_the_factors_are_the_same(edit):
    kohya, tensors = (edit_lora(edit, SD15, weights, 0.5, naming) for naming in Naming)
    name, same = (key(8, Part.VALUES, naming) for naming in (Naming.DIFFUSERS, Naming.KOHYA))
    assert torch.equal(tensors[f"{name}.up.weight"], kohya[f"{same}.lora_up.weight"])
    assert torch.equal(tensors[f"{name}.down.weight"], kohya[f"{same}.lora_down.weight"])
    assert not any(key.endswith("alpha") for key in tensors)


@pytest.mark.parametrize(
    ("naming", "up_name", "down_name"),
    [
        (Naming.KOHYA, "lora_unet_label_emb_0_0.lora_up", "lora_unet_label_emb_0_0.lora_down"),
        (Naming.DIFFUSERS, "unet.add_embedding.linear_1.lora.up", "unet.add_embedding.linear_1.lora.down"),
    ],
)
def test_the_pooled_path_leaves_the_inputs_beyond_the_embedding_alone(operator, naming, up_name, down_name):
    label = torch.randn(16, 38, generator=torch.Generator().manual_seed(2))
    edit = edit_of(operator, LayerSet((6, 8), 70), pooled=operator)
    tensors = edit_lora(edit, SDXL, weights, naming=naming, pooled_weight=label)
    up, down = (tensors[f"{name}.weight"].double() for name in (up_name, down_name))
    expected = operator.weight_change(label[:, :32].double())
    assert torch.linalg.norm(up @ down[:, :32] - expected) / torch.linalg.norm(expected) < 1e-3  # float16
    assert down[:, 32:].abs().max() == 0


def test_an_edit_that_changes_nothing_is_no_lora(edit):
    with pytest.raises(ValueError, match="it changes nothing"):
        edit_lora(edit, SD15, weights, 0.0)


def test_neither_factor_leaves_the_range_of_float16(edit):
    sizes = [value.abs().max() for key, value in edit_lora(edit, SD15, weights).items() if "lora" in key]
    assert all(torch.isfinite(size) and size < 100 for size in sizes)


def test_all_matrices_have_the_same_rank_and_alpha(edit):
    tensors = edit_lora(edit, SD15, weights)
    assert {value.item() for key, value in tensors.items() if key.endswith(".alpha")} == {5}
    assert {len(value) for key, value in tensors.items() if key.endswith("down.weight")} == {5}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_the_file_tells_how_it_was_made(edit, tmp_path):
    path = tmp_path / "folder" / "edit.safetensors"
    save_lora(edit_lora(edit, SD15, weights), path, SD15, {"loco_layers": "8-9"})
    assert metadata(path)["loco_layers"] == "8-9"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("naming", Naming)
def test_the_file_tells_what_model_it_is_for_and_has_its_name_for_a_title(edit, tmp_path, naming):
    layers, path = replace(SD15, width=768), tmp_path / "no woodcut.safetensors"
    save_lora(edit_lora(edit, SD15, weights, naming=naming), path, layers, {})
    told = metadata(path)
    assert told.items() >= layers.family.lora_metadata(layers, naming).items() > {}.items()
    assert told["modelspec.title"] == "no woodcut"


def test_the_rank_is_told_as_kohyas_scripts_do_where_they_read_the_file(edit, tmp_path):
    for naming in Naming:
        save_lora(edit_lora(edit, SD15, weights, naming=naming), tmp_path / naming, SD15, {})
    network = {"ss_network_module": "networks.lora", "ss_network_dim": "5", "ss_network_alpha": "5.0"}
    assert metadata(tmp_path / Naming.KOHYA) == network
    assert not metadata(tmp_path / Naming.DIFFUSERS)


def test_no_date_tells_two_files_of_the_same_edit_apart(edit, tmp_path):
    save_lora(edit_lora(edit, SD15, weights), tmp_path / "edit", replace(SD15, width=768), {})
    assert not [name for name in metadata(tmp_path / "edit") if "date" in name or "time" in name]


def test_a_smaller_rank_has_the_edits_leading_parts_and_0_has_all():
    edit = solve_edit(encode, recipe(["woodcut", "a cat in woodcut", "halftone"]))
    assert edit.figures.rank > 3
    weight = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(0))
    for rank in (1, 3):
        tensors = edit_lora(of_rank(edit, rank), SD15, lambda index: (weight, weight))
        assert {len(tensor) for key, tensor in tensors.items() if "lora_down" in key} == {rank}
        assert edit.figures.left_out(rank) > edit.figures.left_out(edit.figures.rank)
    assert of_rank(edit, AUTO) is edit


def test_what_a_smaller_rank_leaves_out_of_the_concepts_is_told():
    pairs = ["woodcut", "a cat in woodcut", "halftone"]
    edit = solve_edit(encode, recipe(pairs))
    columns = torch.cat([embedding.tokens[1:].T for embedding in encode(pairs)], 1).double()
    whole, cut = (shared_operator(own).change(columns) for own in (edit, of_rank(edit, 2)))
    missing = torch.linalg.norm(whole - cut) / torch.linalg.norm(whole)
    # the edit's own columns are the prompts' tails, and these all their tokens
    assert missing.item() == pytest.approx(edit.figures.left_out(2), rel=0.2)
