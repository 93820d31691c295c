"""Another prompt for some blocks of a transformer whose blocks change the text: two text streams and one image.

The model's call is made as always. Beside it the other prompt's text goes through the same blocks: when a block has
done its work, it is run once more on the same image and the other text, and where it is one of the chosen blocks the
image becomes what that gave. So own and other text both see the one image, and each is read in its own positions.

What the first block gets for the other prompt, the model's own code makes: it is called with that prompt, and stopped
there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.sampler_helpers import convert_cond
from comfy.samplers import encode_model_conds

from ...loco_core.models.layers import Address

# Under which such patches stand in the host's transformer_options, where no part of the host looks for them.
STREAMS = "loco_streams"
# What a conditioning of the host's says of its prompt: by these names the host's model gets it.
CONTEXT, POOLED, TEXT_CONDS = "c_crossattn", "y", ("attention_mask",)
# The host's options for a call: which of its chunks of rows are of which branch.
OPTIONS, CHUNKS = "transformer_options", "cond_or_uncond"


@dataclass(frozen=True)
class BlockKind:
    """How a model calls one kind of block.

    positional: the names of what it gives by position. image, text: what the block calls the two; without `text`, the
    image's has the text in front. output: the layer that attention's result of the image goes through; None where
    attention is not of text and image together. own: what else goes with a prompt: its positions, its mask.
    text_first: whether the block gives the text before the image. vector: what the pooled embedding is a part of, where
    there is one. changes_text: whether it gives a text too, which the next block gets.
    """

    positional: tuple[str, ...]
    image: str
    text: str | None
    output: str | None
    own: tuple[str, ...] = ()
    text_first: bool = False
    vector: str | None = None
    changes_text: bool = True

    def named(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A call's arguments by name."""
        return {**dict(zip(self.positional, args, strict=True)), **kwargs}

    def image_of(self, call: Mapping[str, Any], length: int | None = None) -> torch.Tensor:
        """The image [rows, length, d] that a call gets."""
        return call[self.image] if self.text else call[self.image][:, -length:]

    def run(
        self, module: torch.nn.Module, call: Mapping[str, Any], text: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """What the block makes of a text and an image."""
        if self.text:
            call = {**call, self.text: text, self.image: image}
        else:
            call = {**call, self.image: torch.cat([text, image], 1)}
        args = [call[name] for name in self.positional]
        given = module.forward(*args, **{name: value for name, value in call.items() if name not in self.positional})
        if not self.changes_text:
            return text, given
        if self.text:
            return given if self.text_first else given[::-1]
        return given[:, : -image.shape[1]], given[:, -image.shape[1] :]

    def image_in(self, given: Any, length: int) -> torch.Tensor:
        """The image [rows, length, d] in what the block gave, to be written to."""
        if not self.changes_text:
            return given
        if self.text:
            return given[1 if self.text_first else 0]
        return given[:, -length:]


@dataclass(frozen=True, eq=False)
class Block:
    """A block of a model, at its address. text_from: of a first block that gets the text in front of the image, the
    module that has made the text.
    """

    address: Address
    module: torch.nn.Module
    kind: BlockKind
    text_from: torch.nn.Module | None = None


@dataclass(frozen=True, eq=False)
class OtherText:
    """Rows of a call in which some blocks read another prompt: own + strength (other - own).

    places: of each row, the addresses of these blocks. conds: by the host's names, what its model gets for the prompt,
    with a row for each of `rows`.
    """

    rows: tuple[int, ...]
    places: tuple[frozenset[Address], ...]
    conds: Mapping[str, torch.Tensor]
    strength: float = 1.0

    def replaces(self, own: OtherText) -> bool:
        """Whether it is read by all that might read `own`, so that one stream is enough."""
        return (self.rows, self.places, self.strength) == (own.rows, own.places, 1.0)

    def __len__(self) -> int:
        """Tokens of the prompt."""
        return self.conds[CONTEXT].shape[1]


def others_of(
    entries: Sequence[tuple[int, frozenset[Address], Mapping[str, torch.Tensor]]], strength: float = 1.0
) -> list[OtherText]:
    """Of rows, each with the blocks that read another prompt and what the model gets for it [1, ...], those of prompts
    of one length together.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, (_, _, conds) in enumerate(entries):
        alike.setdefault(tuple((name, value.shape) for name, value in conds.items()), []).append(number)
    found = []
    for numbers in alike.values():
        rows, places, conds = zip(*(entries[number] for number in numbers), strict=True)
        together = {name: torch.cat([own[name] for own in conds]) for name in conds[0]}
        found.append(OtherText(rows, places, together, strength))
    return found


def prompt_conds(
    model: BaseModel, conditioning: list, x: torch.Tensor, pooled: bool = False
) -> dict[str, torch.Tensor]:
    """What the model gets for a conditioning of the host's, by name, in a call on latents `x`; its pooled embedding if
    asked for, where the model gets one.
    """
    (own,) = encode_model_conds(
        model.extra_conds, convert_cond(conditioning), x, x.device, "positive", latent_image=torch.zeros_like(x)
    )
    names = (CONTEXT, *TEXT_CONDS, *([POOLED] if pooled else []))
    return {name: own["model_conds"][name].cond for name in names if name in own["model_conds"]}


class BlocksPatch:
    """A patch of what some blocks read. tokens: so many at least all prompts are padded to, where a model places the
    image behind the text.
    """

    tokens: int = 0


class StreamPatch(BlocksPatch, ABC):
    """A patch that gives some blocks another prompt."""

    @abstractmethod
    def others(self, model: BaseModel, x: torch.Tensor, options: dict[str, Any]) -> Sequence[OtherText]:
        """Which rows of this call, on latents `x`, read which prompts in which blocks."""


class TextEdit(BlocksPatch, ABC):
    """A patch that has the blocks at `places` read every prompt, own or other, in a changed form."""

    places: frozenset[Address]

    @abstractmethod
    def covers(self, options: dict[str, Any]) -> bool:
        """Whether it acts in this call."""

    @abstractmethod
    def changed(self, context: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """A prompt's embedding [rows, T, d] in the changed form."""

    def edited(self, own: OtherText, others: Sequence[OtherText], options: dict[str, Any]) -> list[OtherText]:
        """The others with this edit. own: every row of the call, with what it gets for its own prompt, and the blocks
        that may read it.
        """
        if not self.covers(options):
            return list(others)
        taken: dict[int, frozenset[Address]] = {}
        for other in others:
            for row, places in zip(other.rows, other.places, strict=True):
                taken[row] = taken.get(row, frozenset()) | places
        free = tuple(places - taken.get(row, frozenset()) for row, places in zip(own.rows, own.places, strict=True))
        found = []
        for text in (*others, replace(own, places=free)):
            inside = tuple(places & self.places for places in text.places)
            outside = tuple(places - self.places for places in text.places)
            if any(outside) and text in others:
                found.append(replace(text, places=outside))
            if any(inside):
                conds = {**text.conds, CONTEXT: self.changed(text.conds[CONTEXT], options)}
                found.append(replace(text, places=inside, conds=conds))
        return found


def call_with_streams(
    call: Callable[[OtherText | None], torch.Tensor], blocks: Sequence[Block], others: Sequence[OtherText]
) -> torch.Tensor:
    """What `call(None)`, the model's call, gives while the others' texts go through the blocks beside it. `call(other)`
    is the call for the other's rows with its prompt.
    """
    streams = [_begun(call, blocks[0], other) for other in others]
    chosen = frozenset(address for other in others for places in other.places for address in places)
    last = max((place for place, block in enumerate(blocks) if block.address in chosen), default=-1)
    with ExitStack() as hooked:
        for block in blocks[: last + 1]:
            step = _Step(block, streams)
            hooked.enter_context(block.module.register_forward_pre_hook(step.before, with_kwargs=True))
            hooked.enter_context(block.module.register_forward_hook(step.after, with_kwargs=True))
        return call(None)


@dataclass(eq=False)
class _Stream:
    """An other text on its way: `text` [rows, T, d] as the next block gets it, and what goes with it in every block.
    image_length: tokens of the image beside it.
    """

    other: OtherText
    text: torch.Tensor | None
    own: dict[str, Any]
    image_length: int


class _Reached(Exception):
    """A block is reached, with these arguments."""

    def __init__(self, call: dict[str, Any]) -> None:
        super().__init__()
        self.call = call


def _begun(call: Callable[[OtherText], torch.Tensor], first: Block, other: OtherText) -> _Stream:
    """The other prompt as the first block gets it."""
    kind, made = first.kind, []

    def stop(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        raise _Reached(kind.named(args, kwargs))

    with ExitStack() as hooked:
        hooked.enter_context(first.module.register_forward_pre_hook(stop, with_kwargs=True))
        if first.text_from is not None:
            hooked.enter_context(first.text_from.register_forward_hook(lambda module, args, given: made.append(given)))
        try:
            call(other)
        except _Reached as reached:
            begun = reached.call
        else:
            raise ValueError(
                "model: another node runs it without its blocks (a cache, for example); take that node out"
            )
    names = [*kind.own, *([kind.vector] if kind.vector and POOLED in other.conds else [])]
    own = {name: begun[name] for name in names if name in begun}
    if kind.text:
        return _Stream(other, begun[kind.text], own, begun[kind.image].shape[1])
    length = made[-1].shape[1]
    return _Stream(other, begun[kind.image][:, :length], own, begun[kind.image].shape[1] - length)


class _Step:
    """One block's work in one call of the model."""

    def __init__(self, block: Block, streams: Sequence[_Stream]) -> None:
        self._block, self._streams = block, streams
        self._call: dict[str, Any] = {}
        self._image = torch.empty(0)

    def before(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._call = self._block.kind.named(args, kwargs)
        length = self._streams[0].image_length
        self._image = self._block.kind.image_of(self._call, length).clone()  # blocks write to what they get

    def after(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], given: Any) -> None:
        kind, count = self._block.kind, len(self._image)
        image = kind.image_in(given, self._image.shape[1])
        for stream in self._streams:
            here = [number for number, places in enumerate(stream.other.places) if self._block.address in places]
            if not here and not kind.changes_text:
                continue
            rows = list(stream.other.rows)
            call = {name: _of_rows(value, rows, count) for name, value in self._call.items()}
            call[OPTIONS] = _options_of_rows(self._call[OPTIONS], rows, count)
            call |= stream.own
            stream.text, made = kind.run(module, call, stream.text, self._image[rows])
            if here:
                chosen = [rows[number] for number in here]
                own, strength = image[chosen], stream.other.strength
                image[chosen] = made[here] if strength == 1 else torch.lerp(own, made[here], strength)
        self._call, self._image = {}, torch.empty(0)


def _of_rows(value: Any, rows: list[int], count: int) -> Any:
    """What of a call's argument, of `count` rows, is of these rows; an argument of no rows stays as it is."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and len(value) == count else value
    if isinstance(value, list | tuple):
        return type(value)(_of_rows(each, rows, count) for each in value)
    if is_dataclass(value):
        return replace(value, **{one.name: _of_rows(getattr(value, one.name), rows, count) for one in fields(value)})
    return value


def _options_of_rows(options: Mapping[str, Any], rows: list[int], count: int) -> dict[str, Any]:
    """The host's options for these rows alone, where they are whole chunks."""
    chunks, own = options.get(CHUNKS) or [0], set(rows)
    size = count // len(chunks)
    whole = [number for number in range(len(chunks)) if own.issuperset(range(number * size, (number + 1) * size))]
    if len(whole) * size != len(rows):
        return dict(options)
    return {**options, CHUNKS: [chunks[number] for number in whole]}


@contextmanager
def padded_alike(transformer: torch.nn.Module, tokens: int) -> Iterator[None]:
    """Has a model that pads prompts to multiples of some length (Z-Image) pad all to one that holds so many tokens: its
    image's positions begin behind the text, and are to be the same with each prompt.
    """
    multiple = getattr(transformer, "pad_tokens_multiple", None)
    if not multiple:
        yield
        return
    embed = transformer.embed_cap

    def embed_prompt(*args: Any, **kwargs: Any) -> Any:
        transformer.pad_tokens_multiple = math.ceil(tokens / multiple) * multiple
        try:
            return embed(*args, **kwargs)
        finally:
            transformer.pad_tokens_multiple = multiple

    transformer.embed_cap = embed_prompt
    try:
        yield
    finally:
        del transformer.embed_cap


def own_text(context: torch.Tensor, values: Mapping[str, Any], blocks: Sequence[Block]) -> OtherText:
    """A call's own prompts, one for each of its rows, which any block may read. values: its other conditionings."""
    rows, every = tuple(range(len(context))), frozenset(block.address for block in blocks)
    said = {name: values[name] for name in TEXT_CONDS if values.get(name) is not None}
    return OtherText(rows, (every,) * len(rows), {CONTEXT: context, **said})


def rows_of_call(other: OtherText, values: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A call's conditionings, of `count` rows, for the other's rows: what they say of the prompt is the other's."""
    rest = {name: _of_rows(value, list(other.rows), count) for name, value in values.items()}
    return {name: value for name, value in rest.items() if name not in TEXT_CONDS} | dict(other.conds)
