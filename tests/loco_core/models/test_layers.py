from __future__ import annotations

import pytest

from loco_core.models.layers import CrossAttentionLayer, LayerSet, block_name, parse_layers, windows


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


def unet(down: list[int], middle: int, up: list[int]) -> list[CrossAttentionLayer]:
    """Layers of a U-Net with so many transformer blocks in each of its blocks; block numbers are 0, 2, 4 and so on."""
    places = [("input", 2 * block, inside) for block, count in enumerate(down) for inside in range(count)]
    places += [("middle", 0, inside) for inside in range(middle)]
    places += [("output", 2 * block, inside) for block, count in enumerate(up) for inside in range(count)]
    return [CrossAttentionLayer(index, *place) for index, place in enumerate(places)]


SD15 = unet([1] * 6, 1, [1] * 9)
SDXL = unet([2, 2, 10, 10], 10, [10, 10, 10, 2, 2, 2])


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
    assert parse_layers(text, SD15).indices == indices


@pytest.mark.parametrize(
    ("text", "indices"),
    [("45-47", (45, 46, 47)), ("d2.2-9", tuple(range(6, 14))), ("u1.4", (48,)), ("m0", tuple(range(24, 34)))],
)
def test_inner_layers_of_sdxl_can_be_named(text, indices):
    assert parse_layers(text, SDXL).indices == indices


@pytest.mark.parametrize("layers", [SD15, SDXL])
def test_a_layers_block_name_reads_back_as_that_layer(layers):
    assert [parse_layers(block_name(layer, layers), layers).indices for layer in layers] == [
        (layer.index,) for layer in layers
    ]


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
        parse_layers(text, SD15)
