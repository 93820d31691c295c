"""The text layers of a model, and sets of them.

    layers = engine.layers               # ModelLayers: read from a model once, then passed on
    chosen = layers.parse("8-9, m0")     # LayerSet: what a person wrote down
    for window in windows(layers, 2): ...

A text layer is a layer that is conditioned on the prompt. Its index is its 0-based position in forward order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..choices import Choice
from ..prompts import Attribute

if TYPE_CHECKING:
    from .family import Family, Preset


class Part(Choice):
    """What of a layer is meant: both of its projections of the text, or one."""

    BOTH = "keys and values"
    KEYS = "keys"
    VALUES = "values"

    @property
    def projections(self) -> tuple[Part, ...]:
        """The projections it is made of: KEYS, VALUES or both."""
        return PROJECTIONS if self is Part.BOTH else (self,)


# A layer's block, the number of the block, and the layer's number inside it.
Address = tuple[str, int, int]
# The projections of a layer, in the order in which W_K and W_V are given everywhere.
PROJECTIONS = (Part.KEYS, Part.VALUES)


@dataclass(frozen=True)
class TextLayer:
    """A layer that is conditioned on the prompt, and its place in the model.

    block, block_number: the kind of its block and the number among those, as the original code counts them ("input",
    "middle" or "output" in a U-Net). inner: its number inside the block.
    """

    index: int
    block: str
    block_number: int
    inner: int

    @property
    def address(self) -> Address:
        """Its place, as patches are told which layer calls them."""
        return self.block, self.block_number, self.inner

    def __str__(self) -> str:
        return f"{self.block} {self.block_number}.{self.inner}"


@dataclass(frozen=True)
class LayerSet:
    """Some of a model's `layer_count` text layers: indices, ascending and without repeats."""

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

    @property
    def named(self) -> str:
        """ "layer 8" or "layers 8-9, 12"."""
        return f"layer{'s' if len(self) > 1 else ''} {self}"

    def __str__(self) -> str:
        """The indices as ranges: "8-9, 12"."""
        ranges: list[list[int]] = []
        for index in self.indices:
            if ranges and index == ranges[-1][1] + 1:
                ranges[-1][1] = index
            else:
                ranges.append([index, index])
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


@dataclass(frozen=True)
class ModelLayers:
    """What kind of model this is: its text layers in forward order, the width of the embeddings they get, its family.

    modules: the name of each layer's module in the program that runs the model. levels: of a U-Net, how many ResNets
    each of its levels has on the way down, the finest level first. predicts_v: whether it predicts v and not the noise.
    text_in: of blocks that change the text, the linear layer by which the prompt's embedding comes in, by name, if it
    gets that as it is. pooled_in: the first layer that a pooled embedding meets, if there is one.
    """

    layers: tuple[TextLayer, ...]
    modules: tuple[str, ...]
    width: int
    family: Family
    levels: tuple[int, ...] = ()
    predicts_v: bool = False
    text_in: str = ""
    pooled_in: str = ""

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[TextLayer]:
        return iter(self.layers)

    def __getitem__(self, index: int) -> TextLayer:
        return self.layers[index]

    @property
    def all(self) -> LayerSet:
        return LayerSet(tuple(range(len(self))), len(self))

    @property
    def model_name(self) -> str:
        """The model's name, like "SD 1.5", or a description where it is none that is known."""
        return self.family.model_name(len(self), self.width)

    def chosen(self, layers: LayerSet) -> list[TextLayer]:
        """The chosen layers of this model; an error where they were chosen for another kind of model."""
        if len(self) != layers.layer_count:
            raise ValueError(f"layers: chosen for a model with {layers.layer_count} layers; this model has {len(self)}")
        return [self[index] for index in layers]

    def check_width(self, width: int, what: str) -> None:
        """An error where `what` was made from text embeddings of another width than this model gets."""
        if width != self.width:
            raise ValueError(
                f"{what}: made with text embeddings {width} wide, this model gets {self.width}; "
                "use the CLIP that belongs to this model"
            )

    def check_projections(self) -> None:
        """An error where layers have no W_K and W_V of their own that get the prompt's embedding."""
        if self.family.joint:
            raise ValueError(
                f"model: the blocks of {self.model_name} get the text as other parts of the model have changed it, so "
                "they have no neurons of the prompt. LoCo Remove a Concept, in ComfyUI, removes concepts from it"
            )

    def edited(self, chosen: LayerSet) -> dict[int, tuple[str, ...]]:
        """What an edit of these layers changes: by layer, the names of modules.

        Each has its W_K and W_V. Blocks that change the text have one weight together, by which it comes in: an edit of
        all blocks changes it, and the first block stands for them.
        """
        self.chosen(chosen)
        if not self.family.joint:
            return {layer: tuple(self.projection(layer, part) for part in PROJECTIONS) for layer in chosen}
        if chosen != self.all:
            raise ValueError(
                f"layers: {self.block_names(chosen)}; some blocks of this model have no weights of their own for the "
                f"prompt's embedding, so such an edit acts while sampling alone. For one of weights give '{ALL}'"
            )
        if not self.text_in:
            raise ValueError(
                f"model: {self.model_name} normalises the prompt's embedding before a weight meets it, so edits act "
                "while sampling alone"
            )
        return {0: (self.text_in,)}

    def check_part(self, part: Part) -> None:
        """An error where another prompt cannot be given to keys or values alone."""
        if self.family.joint and part is not Part.BOTH:
            raise ValueError(f"part: '{part}'; blocks of this model read a whole prompt, choose '{Part.BOTH}'")

    def projection(self, layer: int, projection: Part) -> str:
        """The name of the module that is W_K or W_V of a layer."""
        self.check_projections()
        return f"{self.modules[layer]}.{self.family.projections[projection]}"

    def parse(self, text: str) -> LayerSet:
        """The layers that a person wrote down: entries separated by commas, each an index, a range, "all", or blocks in
        the words of the family. An empty text is the empty set.
        """
        indices: list[int] = []
        for entry in entries(text):
            if entry == ALL:
                indices += self.all
            elif match := INDICES.fullmatch(entry):
                indices += parse_range(entry, match[1], match[2], len(self), "layers")
            else:
                indices += self.family.parse_block(entry, self)
        return LayerSet(tuple(indices), len(self))

    def block_name(self, index: int) -> str:
        """A layer in the words that `parse` knows: "u1.0"."""
        return self.family.block_name(self[index], self)

    def block_names(self, chosen: LayerSet) -> str:
        """The same of several: "u1.0, u2.0", "double 7-18, single 0"."""
        return self.family.block_names([self[index] for index in chosen], self)

    def preset(self, attribute: Attribute) -> tuple[LayerSet, Preset]:
        """The layers that the paper found for the attribute in such a model, and where it says so."""
        wanted = Attribute.parse(attribute, "attribute")
        preset = self.family.preset(len(self), self.width, wanted)
        return LayerSet(tuple(range(preset.first, preset.first + preset.window_size)), len(self)), preset


# A person's word for every layer.
ALL = "all"
# An index, or a range of them.
INDICES = re.compile(r"(\d+)(?:-(\d+))?")
# As word processors and East Asian keyboards write them, with spaces around a dash.
_COMMA = re.compile("[,\N{FULLWIDTH COMMA}\N{IDEOGRAPHIC COMMA}]")
_DASH = re.compile(r"\s*[-\N{HYPHEN}-\N{HORIZONTAL BAR}\N{MINUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}]\s*")


def entries(text: str) -> list[str]:
    """What stands between commas, in lower case and with plain dashes; nothing of an empty text."""
    found = (_DASH.sub("-", part.strip().lower()) for part in _COMMA.split(text))
    return [entry for entry in found if entry]


def parse_range(entry: str, first: str, last: str | None, count: int, what: str) -> range:
    """The numbers `first` to `last` of an entry; an error where it runs backwards, or beyond the `count` there are."""
    start, stop = int(first), int(last or first)
    if stop < start:
        raise ValueError(f"layers: {entry!r} runs backwards; give the lower number first, '{stop}-{start}'")
    if stop >= count:
        raise ValueError(f"layers: {entry!r} does not exist; this model has {what} 0 to {count - 1}")
    return range(start, stop + 1)


def windows(layer_count: int, size: int) -> list[LayerSet]:
    """All windows of `size` adjacent layers, in order: layer_count - size + 1 of them."""
    if not 1 <= size <= layer_count:
        raise ValueError(f"window size: {size}; this model has {layer_count} layers, so give 1 to {layer_count}")
    return [LayerSet(tuple(range(start, start + size)), layer_count) for start in range(layer_count - size + 1)]
