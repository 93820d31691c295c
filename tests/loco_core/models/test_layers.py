from __future__ import annotations

import pytest

from loco_core.models.layers import PROJECTIONS, LayerSet, Part, windows
from made_up import SD15, SDXL, WIDTH


def test_there_is_a_window_for_every_start_that_fits():
    found = windows(16, 2)
    assert len(found) == 15
    assert found[0].indices == (0, 1)
    assert found[-1].indices == (14, 15)


@pytest.mark.parametrize("size", [0, 17])
def test_a_window_that_does_not_fit_is_an_error_that_names_the_legal_sizes(size):
    with pytest.raises(ValueError, match=f"window size: {size}.*16 layers.*1 to 16"):
        windows(16, size)


def test_layers_are_sorted_and_without_repeats():
    assert LayerSet((9, 8, 9), 16).indices == (8, 9)


def test_layers_print_as_ranges():
    assert str(LayerSet((1, 4, 5, 6, 9), 16)) == "1, 4-6, 9"


def test_layers_that_do_not_exist_are_an_error():
    with pytest.raises(ValueError, match=r"\[16\] do not exist.*0 to 15"):
        LayerSet((3, 16), 16)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("8-9", (8, 9)),
        (" 3, 8-9 ", (3, 8, 9)),
        ("", ()),
        ("m0", (6,)),
        ("u1", (8,)),
        ("d0-1,U8.0", (0, 1, 15)),
    ],
)
def test_layers_are_read_by_index_and_by_block(text, indices):
    assert SD15.parse(text).indices == indices


@pytest.mark.parametrize(
    ("text", "indices"),
    [("45-47", (45, 46, 47)), ("d2.2-9", tuple(range(6, 14))), ("u1.4", (48,)), ("m0", tuple(range(24, 34)))],
)
def test_inner_layers_of_sdxl_can_be_named(text, indices):
    assert SDXL.parse(text).indices == indices


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("8 - 9", (8, 9)),
        ("8\u20139", (8, 9)),  # an en dash, as word processors write it
        ("3\uff0c8 \u2212 9", (3, 8, 9)),  # the comma of an East Asian keyboard, and a minus sign
        ("all", tuple(range(16))),
        ("OUT04", (8,)),
        ("OUT03-OUT05", (7, 8, 9)),
        ("out00-05", (7, 8, 9)),  # blocks 0 to 2 have no cross-attention
        ("IN07, IN08", (4, 5)),
        ("MID", (6,)),
        ("M00", (6,)),
        ("middle:0", (6,)),
        ("middle_block.1", (6,)),
        ("output:4", (8,)),
        ("input_blocks.4", (2,)),
        ("output", tuple(range(7, 16))),
    ],
)
def test_block_names_of_other_programs_count_all_blocks(text, indices):
    assert SD15.parse(text).indices == indices


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("output:0", tuple(range(34, 44))),
        ("IN07.2-3", (6, 7)),
        ("MID.9", (33,)),
        ("all", tuple(range(70))),
    ],
)
def test_block_names_of_other_programs_lead_to_layers_of_sdxl(text, indices):
    assert SDXL.parse(text).indices == indices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "OUT02",
            "layers: 'out02' has no cross-attention; the output blocks that have it in this model are 3, 4, 5, 6",
        ),
        ("IN00-IN00", "layers: 'in00-in00' has no cross-attention; the input blocks that have it in this model are 1"),
        ("output:12", "layers: 'output:12' does not exist; this model has output blocks 0 to 11"),
        ("OUT05-OUT03", "layers: 'out05-out03' runs backwards"),
        ("IN04.1", "layers: 'in04.1' does not exist; this model has transformer blocks in d2 0 to 0"),
        ("IN04-OUT03", "layers: 'in04-out03' is not understood"),
        ("BASE", "layers: 'base' is not understood"),
        ("8 9", "layers: '8 9' is not understood"),
    ],
)
def test_blocks_of_other_programs_that_hold_no_layers_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SD15.parse(text)


@pytest.mark.parametrize("layers", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_a_layers_block_name_reads_back_as_that_layer(layers):
    read = [layers.parse(layers.block_name(index)).indices for index in layers.all]
    assert read == [(index,) for index in range(len(layers))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("99", "layers: '99' does not exist; this model has layers 0 to 15"),
        ("9-8", "layers: '9-8' runs backwards; give the lower number first, '8-9'"),
        ("eight", "layers: 'eight' is not understood; give indices like '8-9'"),
        ("u9", "layers: 'u9' does not exist; this model has u blocks 0 to 8"),
        ("u1.4", "layers: 'u1.4' does not exist; this model has transformer blocks in u1 0 to 0"),
        ("8;9", "layers: '8;9' is not understood"),
        ("-1", "layers: '-1' is not understood"),
    ],
)
def test_layers_that_cannot_be_read_are_an_error_that_says_what_can(text, message):
    with pytest.raises(ValueError, match=message):
        SD15.parse(text)


def test_a_layer_is_named_by_its_block_and_its_place_in_it():
    assert (SD15.block_name(8), SDXL.block_name(48), SDXL.block_name(24)) == ("u1.0", "u1.4", "m0.0")


# --- layers of a model ------------------------------------------------------------------------------------------------


def test_chosen_layers_are_found_in_their_model_with_their_place():
    (layer,) = SDXL.chosen(LayerSet((48,), 70))
    assert layer.address == ("output", 1, 4)
    assert str(layer) == "output 1.4"


def test_layers_chosen_for_another_kind_of_model_are_refused():
    with pytest.raises(ValueError, match="layers: chosen for a model with 16 layers; this model has 70"):
        SDXL.chosen(LayerSet((8, 9), 16))


def test_what_was_made_with_embeddings_of_another_width_is_refused():
    SD15.check_width(WIDTH, "edit")
    with pytest.raises(ValueError, match=f"edit: made with text embeddings 768 wide, this model gets {WIDTH}; use the"):
        SD15.check_width(768, "edit")


def test_a_part_is_made_of_projections():
    assert Part.BOTH.projections == PROJECTIONS == (Part.KEYS, Part.VALUES)
    assert Part.VALUES.projections == (Part.VALUES,)
    assert SD15.projection(8, Part.KEYS) == f"{SD15.modules[8]}.to_k"
