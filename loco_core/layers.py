"""Cross-attention layers, numbered in forward order, and sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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

    def __iter__(self) -> Iterable[int]:
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
