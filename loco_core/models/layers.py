"""Cross-attention layers, numbered in forward order, and sets of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PARTS = ("keys and values", "keys", "values")
"""What of a layer is meant: both of its projections of the text, or one."""


@dataclass(frozen=True)
class CrossAttentionLayer:
    """One attn2 of one BasicTransformerBlock.

    `index` is its 0-based position in forward order (down, mid, up); `block`, `block_number` and `transformer_index`
    are its place in the U-Net: transformer block `transformer_index` of input, middle or output block `block_number`.
    """

    index: int
    block: str
    block_number: int
    transformer_index: int

    def __str__(self) -> str:
        return f"{self.block} {self.block_number}.{self.transformer_index}"


@dataclass(frozen=True)
class LayerSet:
    """Some of a model's `layer_count` cross-attention layers: indices, ascending and without repeats."""

    indices: tuple[int, ...]
    layer_count: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(sorted(set(self.indices))))
        outside = [index for index in self.indices if not 0 <= index < self.layer_count]
        if outside:
            raise ValueError(f"layers: {outside} do not exist; this model has layers 0 to {self.layer_count - 1}")

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __contains__(self, index: int) -> bool:
        return index in self.indices

    def __str__(self) -> str:
        """The indices as ranges: "8-9, 12"."""
        ranges: list[list[int]] = []
        for index in self.indices:
            if ranges and index == ranges[-1][1] + 1:
                ranges[-1][1] = index
            else:
                ranges.append([index, index])
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def windows(layer_count: int, size: int) -> list[LayerSet]:
    """All windows of `size` adjacent layers, in order: layer_count - size + 1 of them."""
    if not 1 <= size <= layer_count:
        raise ValueError(f"window size: {size}; this model has {layer_count} layers, so give 1 to {layer_count}")
    return [LayerSet(tuple(range(start, start + size)), layer_count) for start in range(layer_count - size + 1)]


_BLOCKS = {"d": "input", "m": "middle", "u": "output"}
_INDICES = re.compile(r"(\d+)(?:-(\d+))?")
_BLOCK = re.compile(r"([dmu])(\d+)(?:-(\d+))?(?:\.(\d+)(?:-(\d+))?)?")
GRAMMAR = "give indices like '8-9' or '3, 8-9', or blocks like 'd2.2-9, m0, u1'"


def parse_layers(text: str, layers: Sequence[CrossAttentionLayer]) -> LayerSet:
    """The layers of a model that a person wrote down: entries separated by commas, each an index, a range or blocks.

    A block entry is d, m or u (down, middle, up) and the number of the block, counting from 0 the blocks that have
    cross-attention; then, after a dot, the transformer blocks in it: "d2.2-9", "m0", "u1.4", "u0-2". Without the dot
    all of them are meant. An empty text is the empty set.
    """
    indices: list[int] = []
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        if match := _INDICES.fullmatch(entry):
            indices += _range(entry, match[1], match[2], len(layers), "layers")
        elif match := _BLOCK.fullmatch(entry):
            indices += _block_layers(entry, match, layers)
        else:
            raise ValueError(f"layers: {entry!r} is not understood; {GRAMMAR}")
    return LayerSet(tuple(indices), len(layers))


def block_name(layer: CrossAttentionLayer, layers: Sequence[CrossAttentionLayer]) -> str:
    """The layer in the words of `parse_layers`: "u1.0"."""
    letter = next(letter for letter, block in _BLOCKS.items() if block == layer.block)
    numbers = sorted({other.block_number for other in layers if other.block == layer.block})
    return f"{letter}{numbers.index(layer.block_number)}.{layer.transformer_index}"


def _block_layers(entry: str, match: re.Match, layers: Sequence[CrossAttentionLayer]) -> list[int]:
    block = _BLOCKS[match[1]]
    numbers = sorted({layer.block_number for layer in layers if layer.block == block})
    indices = []
    for place in _range(entry, match[2], match[3], len(numbers), f"{match[1]} blocks"):
        inside = [layer for layer in layers if (layer.block, layer.block_number) == (block, numbers[place])]
        chosen = range(len(inside))
        if match[4]:
            chosen = _range(entry, match[4], match[5], len(inside), f"transformer blocks in {match[1]}{place}")
        indices += [inside[number].index for number in chosen]
    return indices


def _range(entry: str, first: str, last: str | None, count: int, what: str) -> range:
    start, stop = int(first), int(last or first)
    if stop < start:
        raise ValueError(f"layers: {entry!r} runs backwards; give the lower number first, '{stop}-{start}'")
    if stop >= count:
        raise ValueError(f"layers: {entry!r} does not exist; this model has {what} 0 to {count - 1}")
    return range(start, stop + 1)
