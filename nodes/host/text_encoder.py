"""The host's text encoders: prompts as embeddings, which are kept: of changed lines, the changed ones are encoded."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import comfy.model_management
import torch
from comfy.sd import CLIP

from ...loco_core.models.engine import Chunk, TextEmbedding

# A token's number, or a vector of a textual inversion; its weight; its word's number, 0 for what is no word.
Token: TypeAlias = tuple[int | torch.Tensor, float, int]

# How a prompt names a textual inversion.
_TEXTUAL_INVERSION = re.compile(r"embedding:[^\s,:()]+")
# How much memory the embeddings of one text encoder may take: those of 800 prompts with SDXL, of 2000 with SD 1.5.
KEPT_BYTES = 512 * 2**20


class KeptEmbeddings:
    """Embeddings by what they depend on; beyond KEPT_BYTES the least recently used are given up."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, TextEmbedding] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> TextEmbedding | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, embedding: TextEmbedding) -> None:
        self._kept[key] = embedding
        self._bytes += embedding.tokens.nbytes
        while self._bytes > KEPT_BYTES:
            _, given_up = self._kept.popitem(last=False)
            self._bytes -= given_up.tokens.nbytes


# The host hands nodes the same object as long as nothing before them changes.
_KEPT: WeakKeyDictionary[CLIP, KeptEmbeddings] = WeakKeyDictionary()


def encode(clip: CLIP, prompts: Sequence[str]) -> list[TextEmbedding]:
    """Text embeddings of prompts at weight 1."""
    kept, embeddings = _KEPT.setdefault(clip, KeptEmbeddings()), []
    how = clip.patcher.patches_uuid, clip.layer_idx, str(clip.tokenizer_options)
    for prompt in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        embedding = kept.get((how, prompt))
        if embedding is None:
            embedding = _encoded(clip, prompt)
            if not names_inversion(prompt):  # its file may change
                kept.put((how, prompt), embedding)
        embeddings.append(embedding)
    return embeddings


def names_inversion(prompt: str) -> bool:
    """Whether a textual inversion stands in it."""
    return _TEXTUAL_INVERSION.search(prompt) is not None


def _encoded(clip: CLIP, prompt: str) -> TextEmbedding:
    towers = clip.tokenize(prompt, return_word_ids=True)
    _check_inversions(clip, towers, prompt)
    _check_found(clip, prompt)
    plain = {name: [[(token, 1.0) for token, *_ in chunk] for chunk in chunks] for name, chunks in towers.items()}
    tokens, pooled = clip.encode_from_tokens(plain, return_pooled=True)
    if not torch.isfinite(tokens).all():
        raise ValueError(f"clip: NaN or Inf in the text embedding of {prompt!r}")
    embedding = TextEmbedding(
        prompt=prompt,
        tokens=tokens[0].float().cpu(),
        chunks=_chunks(clip, towers),
        pooled=None if pooled is None else pooled[0].float().cpu(),
    )
    _check(embedding)
    return embedding


def text_encoder(clip: CLIP) -> str:
    """Which text encoder, and which of its layers gives the embedding, as CLIP Set Last Layer says it."""
    layer = "last layer as the model's default" if clip.layer_idx is None else f"stop_at_clip_layer {clip.layer_idx}"
    return f"{type(clip.cond_stage_model).__name__}, {layer}"


def _chunks(clip: CLIP, towers: Mapping[str, list[list[Token]]]) -> tuple[Chunk, ...]:
    """The chunks of the embedding. Where an encoder has several towers, the host cuts them to the shortest."""
    tower = min(towers, key=lambda name: sum(map(len, towers[name])))
    end_token = getattr(getattr(clip.tokenizer, f"clip_{tower}", None), "end_token", None)
    chunks, start = [], 0
    for tokens in towers[tower]:
        words = [place for place, (_, _, word) in enumerate(tokens) if word]
        end = words[-1] + 1 if words else 0
        while end < len(tokens) and not _is(tokens[end], end_token):
            end += 1
        if end == len(tokens):
            raise ValueError(
                "clip: its tokens have no end-of-text token; use the CLIP of a Stable Diffusion or SDXL checkpoint"
            )
        chunks.append(Chunk(start, start + (words[0] if words else end), start + end, start + len(tokens)))
        start += len(tokens)
    return tuple(chunks)


def _is(token: Token, number: int | None) -> bool:
    return not isinstance(token[0], torch.Tensor) and token[0] == number


def _check_inversions(clip: CLIP, towers: Mapping[str, list[list[Token]]], prompt: str) -> None:
    """An error where a textual inversion is of another width than a tower's tokens: the host would leave it out."""
    for name, chunks in towers.items():
        widths = {token.shape[-1] for chunk in chunks for token, *_ in chunk if isinstance(token, torch.Tensor)}
        if not widths:
            continue
        tower = getattr(clip.cond_stage_model, f"clip_{name}")
        own = tower.transformer.get_input_embeddings().weight.shape[-1]
        if widths != {own}:
            raise ValueError(
                f"clip: a textual inversion in {prompt!r} is {max(widths - {own})} wide and this text encoder's tokens "
                f"{own}; use one that was made for this model"
            )


def _check_found(clip: CLIP, prompt: str) -> None:
    """An error for a textual inversion that the host does not find: it would leave it out."""
    for name in _TEXTUAL_INVERSION.findall(prompt):
        chunks = [chunk for tower in clip.tokenize(name).values() for chunk in tower]
        if not any(isinstance(token, torch.Tensor) for chunk in chunks for token, *_ in chunk):
            raise ValueError(
                f"clip: {name} in {prompt!r} was not found; put the file into models/embeddings, or correct its name"
            )


def _check(embedding: TextEmbedding) -> None:
    """An error where the encoder returned something else than the prompt's tokens."""
    prompt, given, asked = embedding.prompt, len(embedding.tokens), embedding.chunks[-1].stop
    if given != asked:
        raise ValueError(
            f"clip: it returned {given} token embeddings for the {asked} tokens of {prompt!r}; a node before this one "
            "changes what it returns (NegPip doubles them): connect the CLIP, and the model, from before that node"
        )
