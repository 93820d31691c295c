"""Which rows of a denoiser call belong to the guider's positive conditioning.

A guider evaluates its conditionings in rows that are joined or split as memory allows, and other nodes tile, repeat or
reorder these rows before the model gets them. So no row is found by its position. One wrapper notes at the start of the
sampling which conditionings are the guider's positive ones; a second one gives every conditioning a mark for each of
its rows, which goes wherever the conditioning goes; a third takes the marks back where the model is called, and tells
the patches what they say. Where a node loses them, patches that need them refuse.

The third wrapper also puts the patches of text layers in order, whatever the order of the nodes: injections first, so
that another node's patch does to the prompt they give what it does to the model's own; edits last, so that they get
what all others have given the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import torch
from comfy.conds import CONDRegular
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...loco_core.choices import Choice
from .compiled import is_compiled, run_uncompiled, uncompiled
from .families import PATCHES
from .families.joint import blocks_of
from .streams import (
    CONTEXT,
    STREAMS,
    OtherText,
    StreamPatch,
    TextEdit,
    call_with_streams,
    own_text,
    padded_alike,
    rows_of_call,
)
from .turns import in_order

Made = TypeVar("Made")

# Under which the wrappers are registered, and leave what they noted in the run's transformer_options.
KEY = "loco_branches"
# What guiders call the conditioning that says what is wanted.
POSITIVE = "positive"
# Under which the marks of rows go with the host's conditionings.
MARKS = "loco_rows"


class Branch(Choice):
    """The guider's positive conditioning, every other one that it evaluates, or all."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    BOTH = "both"


@dataclass(frozen=True)
class CallRows:
    """What the marks say of a call's rows: each one's number in the sampler's batch, and whether it is positive."""

    numbers: tuple[int, ...]
    positive: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class Run:
    """What a patch has to know of the sampling it works in.

    positive: uuids of the guider's positive conditionings. rows: those of the present call, where they can be told.
    prepared: what patches keep for their next calls, for as long as the run takes.
    """

    positive: frozenset[UUID]
    percent_to_sigma: Callable[[float], float]
    rows: CallRows | None = None
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False)


def prepared(run: Run | None, key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, made once in a run."""
    if run is None:
        return make()
    if key not in run.prepared:
        run.prepared[key] = make()
    return run.prepared[key]


@dataclass(frozen=True)
class Schedule:
    """When something acts, in shares of the denoising."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(
                f"start percent: {self.start}, end percent: {self.end}; the start must not come after the end"
            )

    @property
    def always(self) -> bool:
        return (self.start, self.end) == (0, 1)

    def covers(self, options: dict) -> bool:
        """Whether the call's noise level lies in it; `options` are its transformer_options."""
        if self.always:
            return True
        run: Run | None = options.get(KEY)
        if run is None:
            raise ValueError(
                "start percent: this sampler does not tell its noise levels; choose start_percent 0 and end_percent 1"
            )
        return run.percent_to_sigma(self.end) <= options["sigmas"].max().item() <= run.percent_to_sigma(self.start)


@dataclass(frozen=True)
class Scope:
    """Where something acts: in a branch, for a time. Every conditioning that is not the positive one is negative."""

    branch: Branch
    schedule: Schedule

    @property
    def everywhere(self) -> bool:
        return self.branch is Branch.BOTH and self.schedule.always

    def rows(self, options: dict, count: int) -> tuple[int, ...]:
        """Which of the `count` rows at a patch it acts on; `options` are the host's, as a patch gets them."""
        if not self.schedule.covers(options):
            return ()
        if self.branch is Branch.BOTH:
            return tuple(range(count))
        wanted = self.branch is Branch.POSITIVE
        return tuple(row for row, positive in enumerate(positive_rows(options, count).positive) if positive == wanted)


def positive_rows(options: dict, count: int) -> CallRows:
    """The same as `call_rows`; an error where no conditioning is known to be the positive one."""
    run: Run | None = options.get(KEY)
    if run is None or not run.positive:
        raise ValueError("branch: this sampler does not tell its positive prompt from others; choose 'both'")
    return call_rows(options, count)


def call_rows(options: dict, count: int) -> CallRows:
    """What is known of the `count` rows at a patch; an error where they are not those that the marks tell of."""
    run: Run | None = options.get(KEY)
    if run is None or run.rows is None:
        raise ValueError(
            "model: another node (one that wraps the model's call) drops what this pack attaches to the rows to "
            "know them again; choose branch 'both' and one prompt, or sample without that node"
        )
    if len(run.rows) != count:
        raise ValueError(
            f"model: another node's attention patch makes {count} rows of {len(run.rows)}, so none is known again; "
            "choose branch 'both' and one prompt, or sample without that node"
        )
    return run.rows


ALWAYS = Schedule(0.0, 1.0)
EVERYWHERE = Scope(Branch.BOTH, ALWAYS)


def tell_branches(model: ModelPatcher) -> None:
    """Lets the patches of `model`, a clone of one's own, find a Run under KEY in their extra_options."""
    wrappers = {
        WrappersMP.OUTER_SAMPLE: _note_positive,
        WrappersMP.CALC_COND_BATCH: _mark_rows,
        WrappersMP.APPLY_MODEL: _tell_rows,
    }
    for kind, wrapper in wrappers.items():
        model.remove_wrappers_with_key(kind, KEY)  # one serves all patches
        model.add_wrapper_with_key(kind, KEY, wrapper)


def _note_positive(executor: WrapperExecutor, *arguments, **options):
    """Around a guider's whole sampling, whose model_options are its own."""
    guider = executor.class_obj
    positive = frozenset(
        conditioning["uuid"]
        for name, conditionings in guider.conds.items()
        if name == POSITIVE or name.endswith(f"_{POSITIVE}")  # other packs' guiders may have several
        for conditioning in conditionings or ()
    )
    sampling = guider.model_patcher.get_model_object("model_sampling")
    guider.model_options["transformer_options"][KEY] = Run(positive, sampling.percent_to_sigma)
    with run_uncompiled() if is_compiled(guider.model_patcher, guider.model_options) else nullcontext():
        return executor(*arguments, **options)


def _mark_rows(executor: WrapperExecutor, model, conditionings: list, x, timestep, model_options: dict):
    """Around every evaluation of a list of conditionings, each with a list of entries of its own, or None.

    For regional prompts the host lets each one end with copies of the others' entries: its first entry is its own.
    """
    options = model_options["transformer_options"]
    run: Run | None = options.get(KEY)
    if run is not None:
        numbers = _numbers(x, options.get("context_window"))
        conditionings = [
            own and [_marked(entry, own[0]["uuid"] in run.positive, numbers) for entry in own] for own in conditionings
        ]
    return executor(model, conditionings, x, timestep, model_options)


def _numbers(x: torch.Tensor, window: Any | None) -> torch.Tensor:
    """Which of the sampler's batch each row of `x` is.

    The host may sample a batch in windows of some of its rows, with a row from before them in front.
    """
    rows = list(range(len(x)))
    if window is not None and window.dim == 0:
        anchor = getattr(window, "causal_anchor_index", None)
        own = [*([anchor] if anchor is not None and anchor >= 0 else []), *window.index_list]
        rows = own if len(own) == len(x) else rows
    return torch.tensor(rows, device=x.device, dtype=torch.float32)


def _marked(entry: dict, positive: bool, numbers: torch.Tensor) -> dict:
    """The host's entry with a mark [number, positive] for each row."""
    marks = torch.stack([numbers, torch.full_like(numbers, positive)], 1)
    return {**entry, "model_conds": {**entry["model_conds"], MARKS: CONDRegular(marks)}}


def _tell_rows(
    executor: WrapperExecutor,
    x: torch.Tensor,
    t: torch.Tensor,
    c_concat=None,
    c_crossattn=None,
    control=None,
    transformer_options: dict | None = None,
    **rest,
):
    """Around every call of the model: the marks, taken from its conditionings, become the Run's rows."""
    marks, options = rest.pop(MARKS, None), {**(transformer_options or {})}
    if KEY in options:
        options[KEY] = replace(options[KEY], rows=_read(marks, len(x)))
    patches = options.get("patches", {})
    if PATCHES in patches:
        options["patches"] = {**patches, PATCHES: in_order(patches[PATCHES])}
    streams = patches.get(STREAMS, ())
    if not streams:
        return executor(x, t, c_concat, c_crossattn, control, options, **rest)
    model = executor.class_obj
    transformer = uncompiled(model.diffusion_model)
    blocks = blocks_of(transformer)
    others = [other for patch in streams if isinstance(patch, StreamPatch) for other in patch.others(model, x, options)]
    own = own_text(c_crossattn, rest, blocks)
    for patch in streams:
        if isinstance(patch, TextEdit):
            others = patch.edited(own, others, options)

    def call(other: OtherText | None) -> torch.Tensor:
        if other is None:
            return executor(x, t, c_concat, c_crossattn, control, options, **rest)
        rows, alone = list(other.rows), {**options, "wrappers": {}}  # those of other nodes may count calls
        said = rows_of_call(other, {"c_concat": c_concat, **rest}, len(x))
        return model._apply_model(x[rows], t[rows], control=None, transformer_options=alone, **said)

    tokens = [len(own), *(patch.tokens for patch in streams), *(len(other) for other in others)]
    with padded_alike(transformer, max(tokens)):
        if len(others) == 1 and others[0].replaces(own):
            whole = rows_of_call(others[0], rest, len(x))
            return executor(x, t, c_concat, whole.pop(CONTEXT), control, options, **whole)
        return call_with_streams(call, blocks, others)


def _read(marks: torch.Tensor | None, count: int) -> CallRows | None:
    """None where there is not one mark for each of the `count` rows."""
    if marks is None or len(marks) != count:
        return None
    numbers, positive = marks.T.tolist()
    return CallRows(tuple(map(int, numbers)), tuple(map(bool, positive)))
