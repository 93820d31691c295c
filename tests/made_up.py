"""Models' layers and edits for tests, from an operator or solved on made-up embeddings; an engine and a scorer whose
scores are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from loco_core.editing.closed_form import EditOperator
from loco_core.editing.recipe import EditRecipe, EditSettings
from loco_core.editing.solve import Edit, EditFigures
from loco_core.models.engine import Chunk, Row, Sampling, TextEmbedding
from loco_core.models.families.unet import UNET
from loco_core.models.layers import LayerSet, ModelLayers, TextLayer
from loco_core.prompts import PromptPair
from loco_core.scoring.clip_score import SeenText

WIDTH, POOLED = 32, 8
LAYERS = LayerSet((8, 9), 16)


@torch.no_grad()
def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """With weights of a size that lets signals through; scales of norms are 1."""
    generator = torch.Generator().manual_seed(0)
    for weight in filter(torch.is_floating_point, module.state_dict().values()):
        if weight.ndim < 2:
            weight.fill_(1.0)
        else:
            weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
    return module.eval()


def unet(*blocks: tuple[str, int, int], levels: tuple[int, ...] = ()) -> ModelLayers:
    """The layers of a U-Net from its blocks: their kind, their number, and how many text layers they have."""
    places = [(kind, number, inner) for kind, number, depth in blocks for inner in range(depth)]
    layers = tuple(TextLayer(index, *place) for index, place in enumerate(places))
    return ModelLayers(layers, tuple(map(str, layers)), WIDTH, UNET, levels)


# Block for block as the real ones, with narrow embeddings.
SD15 = unet(
    *(("input", number, 1) for number in (1, 2, 4, 5, 7, 8)),
    ("middle", 0, 1),
    *(("output", number, 1) for number in range(3, 12)),
    levels=(2, 2, 2, 2),
)
SDXL = unet(
    *(("input", number, depth) for number, depth in ((4, 2), (5, 2), (7, 10), (8, 10))),
    ("middle", 0, 10),
    *(("output", number, depth) for number, depth in ((0, 10), (1, 10), (2, 10), (3, 2), (4, 2), (5, 2))),
    levels=(2, 2, 2),
)


def recipe(
    concepts: Sequence[str] = ("woodcut",),
    target: str = "a painting",
    preserve: Sequence[str] = (),
    layers: LayerSet = LAYERS,
    **settings,
) -> EditRecipe:
    pairs = tuple(PromptPair(concept, target) for concept in concepts)
    return EditRecipe(pairs, tuple(preserve), EditSettings(**settings), layers, "a text encoder")


def edit_of(operator: EditOperator, layers: LayerSet, pooled: EditOperator | None = None) -> Edit:
    """An edit with this operator; its recipe and figures are made up."""
    figures = EditFigures(operator.rank, 1.0, 0.0, (1.0,), 0, 0.0, 0.0)
    return Edit(recipe(layers=layers), dict.fromkeys(layers, operator), operator.width, figures, pooled)


def shared_operator(edit: Edit) -> EditOperator:
    """The one operator of all its layers."""
    (operator,) = set(edit.operators.values())
    return operator


def chunk(last_subject: int, length: int = 77, start: int = 0) -> Chunk:
    """Rows of a chunk that begins with a start token; `last_subject` is counted from there."""
    return Chunk(start, start + 1, start + last_subject + 1, start + length)


def encode(prompts: Sequence[str]) -> list[TextEmbedding]:
    """A made-up text encoder that reads from left to right: a token's embedding depends on all words up to it."""
    embeddings = []
    for prompt in prompts:
        words = prompt.split()
        seen, tokens = "start", []
        for word in ["", *words, *["end"] * (76 - len(words))]:
            seen = f"{seen} {word}" if len(tokens) <= len(words) + 1 else seen
            seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(seen))
            own = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
            tokens.append(own + 0.01 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(len(tokens))))
        pooled = torch.randn(POOLED, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))
        embeddings.append(TextEmbedding(prompt, torch.stack(tokens), (chunk(len(words)),), pooled))
    return embeddings


class Painter:
    """An engine whose image of a prompt is one grey: what `greys` says, and a little of the seed."""

    layers = SD15

    def __init__(self, greys: dict[str, float]) -> None:
        self._greys = greys

    def encode(self, prompts):
        return [TextEmbedding(prompt, torch.zeros(2, 1), (chunk(0, length=2),)) for prompt in prompts]

    def generate(self, rows, sampling, on_step=None):
        greys = [self._greys[row.embedding.prompt] + row.seed / 1000 for row in rows]
        return torch.tensor(greys)[:, None, None, None].expand(-1, sampling.height, sampling.width, 3)


class GreyScorer:
    """Scores an image's grey x 100, whatever the text, of which it sees so many words."""

    name, digest = "grey", "0123"

    def __init__(self, words: int = 75) -> None:
        self._words = words

    def seen(self, text):
        words = text.split()
        return SeenText(tuple(words[: self._words]), len(words))

    def score(self, images, texts):
        assert len(images) == len(texts)
        return 100 * images.mean((1, 2, 3))

    def similarity(self, images, others):
        return 100 - 100 * (images - others).abs().mean((1, 2, 3))


class Denoiser:
    """An engine whose layers hold a concept. Its predictions and images tell how strongly it shows: white is fully,
    black not at all.

    shown: of the layers that get the concept prompt. across: what layer 8 changes beside that without layer 9.
    """

    def __init__(
        self, concept: str, shown: Callable[[frozenset[int]], float], layers: ModelLayers, across: float = 0.0
    ) -> None:
        self.concept, self.shown, self.layers, self.across = concept, shown, layers, across
        self.asked = 0
        self.made: list[Row] = []

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        return [TextEmbedding(prompt, torch.zeros(3, 4), (Chunk(0, 1, 2, 3),)) for prompt in prompts]

    def sigmas(self, sampling: Sampling) -> list[float]:
        """Halved at every step: all levels weigh alike but for the last."""
        return [*(2.0**-step for step in range(sampling.steps)), 0.0]

    def latents_at(
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        steps: Sequence[int],
        on_step: Callable[[], None] | None = None,
        begun: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for _ in range(max(steps) - (0 if begun is None else min(steps)) if on_step else 0):
            on_step()
        return torch.zeros(len(rows), len(steps), 4, 2, 2)

    def predict(self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int) -> torch.Tensor:
        self.asked += len(rows)
        predicted = torch.zeros(len(rows), 4, 2, 2)
        for place, row in enumerate(rows):
            chosen = () if row.intervention is None else row.intervention.layers
            predicted[place, 0] = self._amount(row)
            predicted[place, 1] = float(row.embedding.prompt != "")
            predicted[place, 2] = self.across * (8 in chosen and 9 not in chosen)
        return predicted * (sampling.steps - step)

    def generate(
        self, rows: Sequence[Row], sampling: Sampling, on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        self.made += rows
        for _ in range(sampling.steps if on_step else 0):
            on_step()
        return torch.stack([torch.full((sampling.height, sampling.width, 3), float(self._amount(row))) for row in rows])

    def given(self, prompt: str) -> bool:
        """Whether the prompt has the concept."""
        return prompt == self.concept

    def _amount(self, row: Row) -> float:
        prompts = [row.embedding.prompt] * len(self.layers)
        for layer in row.intervention.layers if row.intervention else ():
            prompts[layer] = row.intervention.embedding.prompt
        return self.shown(frozenset(layer for layer, prompt in enumerate(prompts) if self.given(prompt)))


def added(held: Mapping[int, float]) -> Callable[[frozenset[int]], float]:
    """Each layer adds its own."""
    return lambda layers: sum(held.get(layer, 0.0) for layer in layers)


def any_of(*holding: int) -> Callable[[frozenset[int]], float]:
    """Each of these layers alone is enough."""
    return lambda layers: float(any(layer in layers for layer in holding))
