"""The host's text encoders: prompts as embeddings, which are kept: of changed lines, the changed ones are encoded."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from ...loco_core.localization.attention import own_places
from ...loco_core.models.engine import Chunk, TextEmbedding
from .families import cosmos

logger = logging.getLogger(__name__)

# A token's number, or a vector of a textual inversion; its weight; its word's number, 0 for what is no word.
Token: TypeAlias = tuple[int | torch.Tensor, float, int]

# By whose tokens the layers' embeddings go, where an encoder has it beside others.
T5 = "t5xxl"
# How a prompt names a textual inversion.
_TEXTUAL_INVERSION = re.compile(r"embedding:[^\s,:()]+")
# How much memory the embeddings of one text encoder may take: those of 800 prompts with SDXL, of 2000 with SD 1.5.
KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a text encoder gave for a prompt, and for a model that adapts it the tokens [n] that it is adapted to."""

    embedding: TextEmbedding
    adapted_to: torch.Tensor | None


class KeptEmbeddings:
    """Embeddings by what they depend on; beyond KEPT_BYTES the least recently used are given up."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Encoded | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, encoded: Encoded) -> None:
        self._kept[key] = encoded
        self._bytes += encoded.embedding.tokens.nbytes
        while self._bytes > KEPT_BYTES:
            _, given_up = self._kept.popitem(last=False)
            self._bytes -= given_up.embedding.tokens.nbytes


# The host hands nodes the same object as long as nothing before them changes.
_KEPT: WeakKeyDictionary[CLIP, KeptEmbeddings] = WeakKeyDictionary()


def encode(
    clip: CLIP, prompts: Sequence[str], model: ModelPatcher | None = None, joint: bool = False
) -> list[TextEmbedding]:
    """Text embeddings of prompts at weight 1. Anima's are completed by the model. joint: for models whose blocks change
    the text, which get whole prompts of any text encoder: which rows are of which words need not be known.
    """
    kept, found = _KEPT.setdefault(clip, KeptEmbeddings()), []
    how = clip.patcher.patches_uuid, clip.layer_idx, str(clip.tokenizer_options)
    for prompt in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        encoded = kept.get((how, prompt))
        if encoded is None:
            encoded = _encoded(clip, prompt)
            if not names_inversion(prompt):  # its file may change
                kept.put((how, prompt), encoded)
        found.append(encoded)
    return [_completed(encoded, model, joint) for encoded in found]  # after all others, for a GPU may not hold both


def _completed(encoded: Encoded, model: ModelPatcher | None, joint: bool) -> TextEmbedding:
    """What the model's layers get."""
    embedding = encoded.embedding
    if encoded.adapted_to is not None:
        if model is None:
            raise ValueError("clip: the text encoder of Anima, whose work the model completes; connect the model too")
        tokens = cosmos.adapted(model, embedding.tokens, encoded.adapted_to)
        (chunk,) = embedding.chunks
        embedding = replace(embedding, tokens=tokens, chunks=(replace(chunk, stop=len(tokens)),), pooled=None)
    if joint and not (embedding.chunks and embedding.chunks[-1].stop == len(embedding.tokens)):
        return replace(embedding, chunks=())
    _check(embedding)
    return embedding


def names_inversion(prompt: str) -> bool:
    """Whether a textual inversion stands in it."""
    return _TEXTUAL_INVERSION.search(prompt) is not None


def _encoded(clip: CLIP, prompt: str) -> Encoded:
    towers = clip.tokenize(prompt, return_word_ids=True)
    _check_inversions(clip, towers, prompt)
    _check_found(clip, prompt)
    plain = {name: [[(token, 1.0) for token, *_ in chunk] for chunk in chunks] for name, chunks in towers.items()}
    given = clip.encode_from_tokens(plain, return_pooled=True, return_dict=True)
    tokens, pooled = given["cond"], given["pooled_output"]
    if not torch.isfinite(tokens).all():
        raise ValueError(f"clip: NaN or Inf in the text embedding of {prompt!r}")
    adapted_to = given.get(cosmos.ADAPTED_TO)
    chunks = _chunks_of_rows(clip, towers, tokens.shape[1]) if adapted_to is None else ()
    embedding = TextEmbedding(
        prompt=prompt,
        tokens=tokens[0].float().cpu(),
        chunks=chunks or _chunks(clip, towers),
        pooled=None if pooled is None else pooled[0].float().cpu(),
    )
    return Encoded(embedding, adapted_to)


def text_encoder(clip: CLIP) -> str:
    """Which text encoder, and which of its layers gives the embedding, as CLIP Set Last Layer says it."""
    layer = "last layer as the model's default" if clip.layer_idx is None else f"stop_at_clip_layer {clip.layer_idx}"
    return f"{type(clip.cond_stage_model).__name__}, {layer}"


def _chunks(clip: CLIP, towers: Mapping[str, list[list[Token]]]) -> tuple[Chunk, ...]:
    """The chunks of the embedding. Where an encoder has several towers of CLIP, the host cuts them to the shortest."""
    return _chunks_of(clip, T5 if T5 in towers else _shortest(towers), towers)


def _shortest(towers: Mapping[str, list[list[Token]]]) -> str:
    return min(towers, key=lambda name: sum(map(len, towers[name])))


def _chunks_of(clip: CLIP, tower: str, towers: Mapping[str, list[list[Token]]], start: int = 0) -> tuple[Chunk, ...]:
    """The chunks of a tower whose first token is at row `start`; empty where no token ends a text."""
    end_token, chunks = getattr(_tower(clip.tokenizer, tower), "end_token", None), []
    for tokens in towers[tower]:
        words = [place for place, (_, _, word) in enumerate(tokens) if word]
        end = words[-1] + 1 if words else 0
        while end < len(tokens) and not _is(tokens[end], end_token):
            end += 1
        if end == len(tokens):
            return ()
        chunks.append(Chunk(start, start + (words[0] if words else end), start + end, start + len(tokens)))
        start += len(tokens)
    return tuple(chunks)


def _chunks_of_rows(clip: CLIP, towers: Mapping[str, list[list[Token]]], rows: int) -> tuple[Chunk, ...]:
    """The chunks of an embedding of so many rows: of towers side by side, of T5 after them, or what a person wrote into
    the template of a language model. Empty where that cannot be told.
    """
    starts = _starts(clip, towers, rows)
    empty = clip.tokenize("", return_word_ids=True)
    if len(starts) == 1 and any(_words(empty[name]) for name in starts):
        return _chunk_in_template(towers, empty, *starts.items())
    beside = {name: towers[name] for name in starts if name != T5}
    chunks = _chunks_of(clip, _shortest(beside), towers) if beside else ()
    return chunks + (_chunks_of(clip, T5, towers, starts[T5]) if T5 in starts else ())


def _chunk_in_template(
    towers: Mapping[str, list[list[Token]]], empty: Mapping[str, list[list[Token]]], started: tuple[str, int]
) -> tuple[Chunk, ...]:
    """The one chunk of a tower: its words are what differs from the empty prompt in the same template."""
    name, start = started
    own, template = ([token for chunk in given[name] for token, *_ in chunk] for given in (towers, empty))
    before = _common(own, template)
    after = min(_common(own[::-1], template[::-1]), len(template) - before)
    end = min(start + len(own) - after, start + len(own) - 1)
    first = max(0, min(start + before, end))
    return (Chunk(0, first, end, start + len(own)),)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    places = (place for place, (own, its) in enumerate(zip(one, other, strict=False)) if own != its)
    return next(places, min(len(one), len(other)))


def concept_rows(clip: CLIP, embedding: TextEmbedding, target: str) -> list[int]:
    """The rows of a prompt's embedding whose tokens the target prompt lacks; none where that cannot be told.

    CLIP's towers go side by side, then T5's; of another one the host may cut off what its template has in front.
    """
    towers, others = (clip.tokenize(prompt, return_word_ids=True) for prompt in (embedding.prompt, target))
    starts, rows = _starts(clip, towers, len(embedding.tokens)), set()
    for name, start in starts.items():
        own, lacking = _words(towers[name]), _words(others[name])
        places = list(own)
        rows |= {start + places[number] for number in own_places(list(own.values()), list(lacking.values()))}
    found = sorted(row for row in rows if 0 <= row < len(embedding.tokens))
    if not found:
        why = "has no words that the target prompt lacks" if starts else "has tokens of another number than its rows"
        logger.warning("attention is not scored: %r %s", embedding.prompt, why)
    return found


def _starts(clip: CLIP, towers: Mapping[str, list[list[Token]]], rows: int) -> dict[str, int]:
    """Of each tower whose tokens are among so many rows of an embedding, the row of its first token."""
    loaded = (name for name in towers if _tower(clip.cond_stage_model, name) is not None)
    lengths = {name: sum(map(len, towers[name])) for name in loaded}
    t5, beside = lengths.pop(T5, 0), min(lengths.values(), default=0)
    if rows == beside + t5:
        return dict.fromkeys(lengths, 0) | ({T5: beside} if t5 else {})
    if t5:
        return {T5: 0} if rows == t5 else {}
    return {name: rows - beside for name in lengths if len(lengths) == 1 and rows < beside}


def _words(chunks: Sequence[Sequence[Token]]) -> dict[int, Hashable]:
    """The tokens of words by their places among all tokens; vectors of textual inversions as tuples."""
    every = (token for chunk in chunks for token in chunk)
    return {
        place: tuple(token.tolist()) if isinstance(token, torch.Tensor) else token
        for place, (token, _, word) in enumerate(every)
        if word
    }


def _tower(owner: Any, name: str) -> Any | None:
    """A tower of the host's tokenizer or text encoder; None where it has no such one."""
    return getattr(owner, f"clip_{name}", getattr(owner, name, None))


def _is(token: Token, number: int | None) -> bool:
    return not isinstance(token[0], torch.Tensor) and token[0] == number


def _check_inversions(clip: CLIP, towers: Mapping[str, list[list[Token]]], prompt: str) -> None:
    """An error where a textual inversion is of another width than a tower's tokens: the host would leave it out."""
    for name, chunks in towers.items():
        widths = {token.shape[-1] for chunk in chunks for token, *_ in chunk if isinstance(token, torch.Tensor)}
        tower = _tower(clip.cond_stage_model, name)
        if not widths or tower is None:
            continue
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
    """An error where the encoder returned something else than the prompt's tokens, or does not tell where it ends."""
    if not embedding.chunks:
        raise ValueError("clip: its tokens have no end-of-text token; use the CLIP that belongs to this model")
    prompt, given, asked = embedding.prompt, len(embedding.tokens), embedding.chunks[-1].stop
    if given != asked:
        raise ValueError(
            f"clip: it returned {given} token embeddings for the {asked} tokens of {prompt!r}; a node before this one "
            "changes what it returns (NegPip doubles them): connect the CLIP, and the model, from before that node"
        )
