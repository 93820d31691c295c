"""The seam between the method and the program that runs the model.

    embeddings = engine.encode(["a red star in the style of woodcut", "a red star"])
    rows = [Row(embeddings[0], seed=0, intervention=Intervention(layers, embeddings[1]))]
    images = engine.generate(rows, sampling)

Search, edit and neurons need a few things of a model, and an Engine's are all that they may ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from .layers import LayerSet, ModelLayers, Part


@dataclass(frozen=True)
class Chunk:
    """A part of a prompt that its text encoder took at once, as rows of the prompt's embedding.

    It begins at row `start`. Its words are the rows from `first_subject` to before `end_of_text`, the row of the token
    that ends them; padding follows, to before row `stop`.
    """

    start: int
    first_subject: int
    end_of_text: int
    stop: int

    @property
    def last_subject(self) -> int:
        """The row of the last word's last token; without words, the row before the end of text."""
        return self.end_of_text - 1

    @property
    def empty(self) -> bool:
        return self.first_subject == self.end_of_text


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """What the text layers are conditioned on for a prompt.

    tokens: [T, d], one row per token. chunks: the parts in which the prompt was encoded, one after the other; a short
    prompt is one, or one for each of the encoders whose rows follow each other. Empty where it is not known which rows
    are of which words. pooled: [p] where the model has one.
    """

    prompt: str
    tokens: torch.Tensor
    chunks: tuple[Chunk, ...]
    pooled: torch.Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether the prompt has no words."""
        return all(chunk.empty for chunk in self.chunks)

    @property
    def tails(self) -> list[range]:
        """Of each chunk, the rows that carry the words before them.

        These are the last subject token, the end of text and the padding. A chunk that the prompt goes on after has no
        padding: there all words carry what stands before them, so its tail is all but its start.
        """
        return [
            range(chunk.first_subject if chunk in self.filled else chunk.last_subject, chunk.stop)
            for chunk in self.chunks
        ]

    @property
    def filled(self) -> list[Chunk]:
        """The chunks that the prompt goes on after."""
        return [chunk for chunk in self.chunks[:-1] if chunk.end_of_text == chunk.stop - 1]


Encode = Callable[[Sequence[str]], list[TextEmbedding]]
# A layer's (W_K, W_V), [d_out, d] each; see Engine.key_value_weights.
Weights = Callable[[int], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Intervention:
    """Giving the chosen layers another text embedding, at all steps, in the positive branch."""

    layers: LayerSet
    embedding: TextEmbedding
    part: Part = Part.BOTH

    def __post_init__(self) -> None:
        Part.parse_field(self, "part")


@dataclass(frozen=True)
class Row:
    """One image to be made. The same seed gives the same starting noise, whatever else is in the batch."""

    embedding: TextEmbedding
    seed: int
    intervention: Intervention | None = None


@dataclass(frozen=True)
class Sampling:
    """How images are made. width and height in pixels."""

    steps: int
    guidance: float
    sampler: str
    scheduler: str
    width: int
    height: int
    negative_prompt: str = ""

    @property
    def rows_per_step(self) -> int:
        """Rows of the denoiser that a step of one image takes: two with guidance, one for each branch."""
        return 1 if self.guidance == 1 else 2


class Engine(Protocol):
    """A text-to-image model as the method sees it."""

    @property
    def layers(self) -> ModelLayers:
        """The text layers, and what kind of model they are of."""
        ...

    @property
    def text_encoder(self) -> str:
        """Which text encoder, and which of its layers gives the embedding, in words."""
        ...

    def digest(self) -> str:
        """Tells models apart by all that their images depend on: 16 hexadecimal digits."""
        ...

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        """Text embeddings at prompt weight 1."""
        ...

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """Images in 0..1, float32 [len(rows), H, W, 3] on the CPU. `on_step` is called after every sampler step."""
        ...

    def sigmas(self, sampling: Sampling) -> list[float]:
        """The noise levels that a run passes: before each step, and after the last. [steps + 1]"""
        ...

    def latents_at(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        on_step: Callable[[], None] | None = None,
        begun: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the rows' runs are at before these steps: [len(rows), len(steps), C, h, w] on the CPU.

        By Euler's method, whatever the sampler, and only as far as the last of the steps. `on_step` as in `generate`.
        `begun` [len(rows), C, h, w]: what the runs are at before the first of the steps, to go on from there.
        """
        ...

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        """The denoised latents that the model predicts for each row, without guidance: [len(rows), C, h, w] on the CPU.

        `latents` [len(rows), C, h, w] are what the rows are at before the step. Both are as the denoiser has them.
        """
        ...

    def key_value_weights(self, layer: int) -> tuple[torch.Tensor, ...]:
        """The effective W_K and W_V of a layer, [d_out, d] each, with every patch on them.

        Of blocks that change the text, the one weight by which text comes in.
        """
        ...
