"""Notes what the concept's tokens give the image in each block, while the host's model predicts as always.

The host lets a caller take the place of its attention function; this one looks at what it gets, and calls the one
before. Hooks say which block it is called in. The first attention in a block is that of text and image together: SD 3.5
medium has a second one, and Z-Image refines text and image before the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...loco_core.localization.attention import Attention, concept_score
from ...loco_core.models.engine import TextEmbedding
from .branches import positive_rows
from .compiled import uncompiled
from .families.joint import blocks_of
from .injection import conditioning_of
from .streams import CONTEXT, OPTIONS, Block, prompt_conds

# Under which the host looks for what takes the place of its attention function, and this wrapper is registered.
OVERRIDE, KEY = "optimized_attention_override", "loco_attention"


class AttentionWatch:
    """Scores the blocks of a model in its next call for each of the sampler's rows.

    embeddings: of the rows' prompts. concepts: of each, the rows of the embedding that are the concept's. scores:
    [rows, layers] once the model was called; NaN in rows of no concept, 0 in blocks that were left out.
    """

    def __init__(self, embeddings: Sequence[TextEmbedding], concepts: Sequence[Sequence[int]], layers: int) -> None:
        self._embeddings, self._concepts = embeddings, concepts
        self.scores = torch.zeros(len(concepts), layers)
        self.scores[[not concept for concept in concepts]] = torch.nan
        self._places: list[list[int]] = []
        self._text = 0  # tokens in front of the image
        self._index: int | None = None  # of the block whose attention comes next
        self._blocks: list[Block] = []
        self._before: Callable[..., torch.Tensor] | None = None

    def attach(self, model: ModelPatcher) -> None:
        """To a clone of one's own."""
        options = model.model_options[OPTIONS]
        self._before = options.get(OVERRIDE)
        options[OVERRIDE] = self._attend
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._watched)

    def _watched(self, executor: WrapperExecutor, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Around the model's call."""
        model: BaseModel = executor.class_obj
        self._places = [self._placed(number, model, x) for number in range(len(self._concepts))]
        self._blocks = blocks_of(uncompiled(model.diffusion_model))
        with ExitStack() as hooked:
            for index, block in enumerate(self._blocks):
                if block.kind.output is None:
                    continue
                enter = partial(self._enter, index)
                hooked.enter_context(block.module.register_forward_pre_hook(enter, with_kwargs=True))
            if (text_from := self._blocks[0].text_from) is not None:
                hooked.enter_context(text_from.register_forward_hook(self._note_text))
            return executor(x, *arguments, **options)

    def _placed(self, number: int, model: BaseModel, x: torch.Tensor) -> list[int]:
        """Where the concept's tokens are in the text that the blocks get: the model's own code places marks."""
        embedding = self._embeddings[number]
        marks = torch.zeros_like(embedding.tokens)
        marks[list(self._concepts[number])] = 1
        (placed,) = prompt_conds(model, conditioning_of([replace(embedding, tokens=marks)]), x[:1])[CONTEXT]
        return placed.any(-1).nonzero().flatten().tolist()

    def _enter(self, index: int, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        kind, self._index = self._blocks[index].kind, index
        if kind.text:
            self._text = kind.named(args, kwargs)[kind.text].shape[1]

    def _note_text(self, module: torch.nn.Module, args: tuple, given: torch.Tensor) -> None:
        self._text = given.shape[1]

    def _attend(self, attend: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """In place of the host's attention function `attend`."""
        index, self._index = self._index, None
        if index is not None:
            self._note(index, *args, **kwargs)
        return self._before(attend, *args, **kwargs) if self._before else attend(*args, **kwargs)

    def _note(
        self,
        index: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        mask: torch.Tensor | None = None,
        **options: Any,
    ) -> None:
        """What the host's attention function gets: [rows, heads, T, d] each, or [rows, T, heads * d] or its parts."""
        if not options.get("skip_reshape"):
            count, length, width = q.shape
            q, k, v = (one.reshape(count, length, -1, width // heads).transpose(1, 2) for one in (q, k, v))
        rows, block = positive_rows(options[OPTIONS], len(q)), self._blocks[index]
        scale = options.get("scale", q.shape[-1] ** -0.5)
        project = partial(_projected, block.module.get_submodule(block.kind.output), q.dtype)
        for row, (number, positive) in enumerate(zip(rows.numbers, rows.positive, strict=True)):
            if positive and self._places[number]:
                own = Attention(q[row, :, self._text :], k[row], v[row], scale, _bias(mask, row, self._text))
                self.scores[number, index] = concept_score(own, self._places[number], project)


def _projected(linear: torch.nn.Module, dtype: torch.dtype, given: torch.Tensor) -> torch.Tensor:
    """W_O of [n, d] without its bias, with the weight as the block's own call has it: [n, d_out].

    Where the layer takes more than attention's result, that stands in front. In half precision a bias would drown what
    is small: rows are of one size while they pass.
    """
    sizes = given.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(given.dtype).tiny)
    rows = torch.nn.functional.pad(given / sizes, (0, linear.in_features - given.shape[-1], 0, 1))
    made = linear(rows.to(dtype)).float()
    return (made[:-1] - made[-1:]) * sizes


def _bias(mask: torch.Tensor | None, row: int, first: int) -> torch.Tensor | None:
    """A mask of the host's as what is added to products, for one row and for queries from `first` on."""
    if mask is None:
        return None
    while mask.ndim < 4:
        mask = mask.unsqueeze(-3)  # as the host does: [T, T], [rows, T, T] or [rows, heads, T, T]
    own = mask[row if len(mask) > 1 else 0]
    own = own if own.shape[1] == 1 else own[:, first:]
    return torch.where(own, 0.0, -torch.inf) if own.dtype == torch.bool else own.float()
