"""How long an edit's solve takes in SDXL's shape, and how much memory, with default settings: 1 to 1000 styles at once.

The prompts' embeddings are made up, alike as CLIP's are: tokens carry what stands before them, and padding is nearly
collinear. Making them is not counted. Beside it the paper's form, a d x d inverse for each of the 140 matrices, of the
same columns. Each case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from benchmarks import peers
from loco_core.editing.lora import edit_lora
from loco_core.editing.recipe import EditRecipe, EditRequest, EditSettings, edit_recipe
from loco_core.editing.solve import PAPER_LAMBDA, solve_edit
from loco_core.editing.token_pairs import token_pairs
from loco_core.models.engine import Chunk, TextEmbedding
from loco_core.models.families.unet import UNET
from loco_core.models.layers import LayerSet, ModelLayers, TextLayer
from loco_core.prompts import Attribute

# Width of the text embeddings, and the output width of every cross-attention layer.
SHAPES = {
    "sd15": (768, [320] * 4 + [640] * 4 + [1280] * 8),
    "sdxl": (2048, [640] * 4 + [1280] * 60 + [640] * 6),
}
WIDTH, OUTPUTS = SHAPES["sdxl"]
CONCEPTS = (1, 10, 100, 1000)
KEPT = "\n".join(
    f"a photo of {thing}"
    for thing in ("a woman", "a man", "a cat", "a dog", "a house", "a street", "a forest", "the sea")
)
# The layers in which the paper found SDXL's styles.
EDITED = LayerSet((45, 46, 47), len(OUTPUTS))
# Of the 140 inverses of the paper's form so many are timed; the others are of the same size.
TIMED = 4
LENGTH = UNET.chunk_length


@dataclass(frozen=True)
class Cost:
    """seconds: of the solve, prompts already encoded. peak_mb: of memory beyond what was there before. rank: of the
    edit. lora_mb: its LoRA, in half precision.
    """

    seconds: float
    peak_mb: float
    rank: int
    lora_mb: float


def random_weights(shape: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """W_K and W_V of every layer, [d_out, d] each."""
    width, outputs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(out, width, generator=generator) / width**0.5,
            torch.randn(out, width, generator=generator) / width**0.5,
        )
        for out in outputs
    ]


def text_layers(count: int, width: int) -> ModelLayers:
    """A model with so many text layers, one in each block."""
    layers = tuple(TextLayer(number, "input", 1 + number, 0) for number in range(count))
    return ModelLayers(layers, tuple(map(str, layers)), width, UNET, levels=(count,))


class Encoder:
    """Makes embeddings up; seconds: what that took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        begun = time.perf_counter()
        made = [_embedding(prompt) for prompt in prompts]
        self.seconds += time.perf_counter() - begun
        return made


def _embedding(prompt: str) -> TextEmbedding:
    words, said = prompt.split(), torch.zeros(WIDTH)
    tokens = [_direction("start", 3.0)]
    for place, word in enumerate(words, 1):
        said = 0.7 * said + _direction(word, 1.0)
        tokens.append(said + _position(place))
    end, drift = said + _direction("end", 0.5), _direction(f"{prompt} drifts", 0.05)
    tokens += [end + _position(place) + drift * place / LENGTH for place in range(len(tokens), LENGTH)]
    return TextEmbedding(prompt, torch.stack(tokens), (Chunk(0, 1, len(words) + 1, LENGTH),))


def _direction(word: str, size: float) -> torch.Tensor:
    return size * torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


@cache
def _position(place: int) -> torch.Tensor:
    return _direction(f"position {place}", 0.3)


def recipe_of(concepts: int) -> EditRecipe:
    names = "\n".join(f"painter{number}" for number in range(concepts))
    request = EditRequest(names, "a painting", KEPT, Attribute.STYLE)
    return edit_recipe(request, EditSettings(), EDITED, "made up")


def _ours(concepts: int) -> Cost:
    torch.set_num_threads(2)
    solve_edit(Encoder(), recipe_of(1))  # loads what is loaded once
    encoder, recipe = Encoder(), recipe_of(concepts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    edit = solve_edit(encoder, recipe)
    seconds = time.perf_counter() - begun - encoder.seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    weights = random_weights("sdxl")
    tensors = edit_lora(edit, text_layers(len(OUTPUTS), WIDTH), weights.__getitem__)
    size = sum(2 * tensor.numel() for tensor in tensors.values())
    return Cost(round(seconds, 2), round(peak / 1024, 1), edit.figures.rank, round(size / 1e6, 2))


def _paper_form(concepts: int) -> float:
    """Seconds of the d x d inverse of every matrix, of the same columns."""
    torch.set_num_threads(2)
    recipe, encoder = recipe_of(concepts), Encoder()
    targets = dict(zip({pair.target for pair in recipe.pairs}, encoder({p.target for p in recipe.pairs}), strict=True))
    pairs = [
        token_pairs(own, targets[pair.target], recipe.settings.tokens)
        for pair, own in zip(recipe.pairs, encoder([pair.concept for pair in recipe.pairs]), strict=True)
    ]
    originals, instead = (torch.cat(part, 1).double() for part in zip(*pairs, strict=True))
    chosen = [values.double() for _, values in random_weights("sdxl")[:: len(OUTPUTS) // TIMED][:TIMED]]
    begun = time.perf_counter()
    for weight in chosen:
        peers.authors(weight, originals, instead, PAPER_LAMBDA)
    return (time.perf_counter() - begun) * 2 * len(OUTPUTS) / len(chosen)


def measure() -> tuple[dict[int, Cost], float]:
    """The cost by number of concepts, and how many times as long the paper's form takes for ten."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        costs = {concepts: pool.apply(_ours, (concepts,)) for concepts in CONCEPTS}
        return costs, round(pool.apply(_paper_form, (10,)) / costs[10].seconds, 1)
