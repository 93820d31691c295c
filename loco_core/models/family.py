"""What a family of models has in common: the names of its layers, of their weights, and of its tokens.

A new family is one file in `families/`, and one in the adapter of each program that runs its models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..choices import Choice
from ..prompts import Attribute

if TYPE_CHECKING:
    from .layers import ModelLayers, Part, TextLayer


class Naming(Choice):
    """How the keys of a LoRA file are named. ComfyUI, Forge and diffusers load both.

    kohya: as its scripts do, after diffusers' modules for Stable Diffusion 1.x and 2.x, after the original U-Net's for
    SDXL and its kin. diffusers: after its modules for every model, in the form of its attention processors, the only
    one of diffusers' own that ComfyUI and Forge know too.
    """

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class Preset:
    """A window of layers that the paper found in a model, and where it says so."""

    model: str
    attribute: Attribute
    first: int
    window_size: int
    source: str

    def __str__(self) -> str:
        last = self.first + self.window_size - 1
        return f"{self.model}, {self.attribute}: {self.first}-{last} ({self.source})"


@dataclass(frozen=True)
class PlacedBlock:
    """A block in a picture of the model: its name, its text layers, and its place, with row 0 on top."""

    name: str
    indices: tuple[int, ...]
    column: float
    row: float


@dataclass(frozen=True)
class Heading:
    """A word above some blocks."""

    text: str
    column: float
    row: float


@dataclass(frozen=True)
class FloorPlan:
    """Where the blocks of a model stand in a picture of it, `rows` of them one above the other."""

    blocks: tuple[PlacedBlock, ...]
    headings: tuple[Heading, ...]
    rows: int

    @property
    def widest(self) -> int:
        """Text layers in the widest block."""
        return max(len(block.indices) for block in self.blocks)

    @property
    def both_ways(self) -> bool:
        """Whether the model leads down on the left and up on the right, as U-Nets do; else it leads down."""
        return any(block.column for block in self.blocks)


class Family(ABC):
    """A family of models.

    projections: the names of the modules that are W_K and W_V, inside a layer's module. chunk_length: how many tokens,
    special ones included, its own text encoder takes at once; another one may be at work. grammar: how a person writes
    layers down. joint: whether its blocks get the text as other parts of the model have changed it, so that no W_K and
    W_V gets an embedding of the prompt.
    """

    projections: ClassVar[Mapping[Part, str]]
    chunk_length: ClassVar[int]
    grammar: ClassVar[str]
    presets: ClassVar[tuple[Preset, ...]] = ()
    joint: ClassVar[bool] = False

    @abstractmethod
    def model_name(self, layer_count: int, width: int) -> str:
        """The name of the model with so many text layers, which get embeddings so wide."""

    @abstractmethod
    def parse_block(self, entry: str, layers: ModelLayers) -> list[int]:
        """The indices of the layers in the blocks that a person wrote down as `entry`."""

    @abstractmethod
    def block_name(self, layer: TextLayer, layers: ModelLayers) -> str:
        """The layer in the words that `parse_block` knows."""

    def block_names(self, chosen: Sequence[TextLayer], layers: ModelLayers) -> str:
        """The same of several, in forward order."""
        return ", ".join(self.block_name(layer, layers) for layer in chosen)

    @abstractmethod
    def lora_key(self, layer: TextLayer, projection: Part, layers: ModelLayers, naming: Naming) -> str:
        """The key of a projection's weight in a LoRA file, up to the name of the factor. Of blocks that change the
        text, that of the layer by which it comes in.
        """

    def pooled_lora_key(self, naming: Naming) -> str:
        """The same for the weight that the pooled embedding meets first."""
        raise ValueError("pooled: models of this family get no pooled embedding")

    @abstractmethod
    def lora_metadata(self, layers: ModelLayers, naming: Naming) -> dict[str, str]:
        """What model a LoRA file is for, in the metadata by which managers of such files sort them; nothing where the
        model is not a known one.
        """

    @abstractmethod
    def image_size(self, layers: ModelLayers) -> int:
        """The side of the square images that the model was made for, in pixels."""

    @abstractmethod
    def first_window_size(self, layer_count: int) -> int:
        """The size of the windows with which a search for the best size begins."""

    @abstractmethod
    def floor_plan(self, layers: ModelLayers) -> FloorPlan:
        """Where the blocks stand in a picture of the model."""

    def preset(self, layer_count: int, width: int, attribute: Attribute) -> Preset:
        """The paper's layers for the attribute in such a model."""
        name = self.model_name(layer_count, width)
        for preset in self.presets:
            if (preset.model, preset.attribute) == (name, attribute):
                return preset
        known = ", ".join(dict.fromkeys(preset.model for preset in self.presets))
        only = f", only for {known}" if known else ""
        raise ValueError(
            f"preset: the paper has none for {name}{only}; write the layers down, or find them with LoCo Layer Search"
        )
