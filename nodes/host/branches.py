"""Which rows of a denoiser call belong to the guider's positive conditioning.

A guider evaluates its conditionings in chunks of rows, joined or split as memory allows; cond_or_uncond tells of each
chunk which entry of the guider's call it belongs to, but not what that entry is: 0 is the positive prompt for the
ordinary CFG guider, and the negative one in self-attention guidance's extra call. So a wrapper notes at the start of
the sampling which conditionings are the guider's positive ones, another one finds them again in every call, and a
patch goes by that, never by position or batch size.

The same wrapper puts the patches of text layers in order: one with `acts_last` gets what all others, an injector's too,
have given the layer, whatever the order of the nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS

from ...loco_core.choices import Choice
from .families import unet

logger = logging.getLogger(__name__)

# Under which the wrappers are registered, and leave what they noted in the run's transformer_options.
KEY = "loco_branches"


class Branch(Choice):
    """The guider's positive conditioning, every other one that it evaluates, or all."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    BOTH = "both"


@dataclass(frozen=True, eq=False)
class Run:
    """What a patch has to know of the sampling it works in.

    positive: uuids of the guider's positive conditionings; positive_entries: their places in its present call.
    prepared: what patches keep for their next calls, for as long as the run takes.
    """

    positive: frozenset[UUID]
    percent_to_sigma: Callable[[float], float]
    positive_entries: frozenset[int] = frozenset()
    prepared: dict[Any, torch.Tensor] = field(default_factory=dict, repr=False)


def prepared(run: Run | None, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
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

    def covers(self, options: dict, sigma: float) -> bool:
        """Whether the noise level `sigma` lies in it; `options` are the run's transformer_options."""
        if self.always:
            return True
        run: Run | None = options.get(KEY)
        if run is None:
            raise ValueError(
                "start percent: this sampler does not tell its noise levels; choose start_percent 0 and end_percent 1"
            )
        return run.percent_to_sigma(self.end) <= sigma <= run.percent_to_sigma(self.start)


@dataclass(frozen=True)
class Scope:
    """Where something acts: in a branch, for a time. Every conditioning that is not the positive one is negative."""

    branch: Branch
    schedule: Schedule

    @property
    def everywhere(self) -> bool:
        return self.branch is Branch.BOTH and self.schedule.always

    def chunks(self, options: dict) -> list[int]:
        """Which chunks of the present call's rows it acts on; `options` are the host's, as a patch gets them."""
        entries = options["cond_or_uncond"]
        if self.everywhere:
            return list(range(len(entries)))
        if not self.schedule.covers(options, options["sigmas"].max().item()):
            return []
        if self.branch is Branch.BOTH:
            return list(range(len(entries)))
        run: Run | None = options.get(KEY)
        if run is None:
            raise ValueError("branch: this sampler does not tell its positive prompt from others; choose 'both'")
        wanted = self.branch is Branch.POSITIVE
        return [place for place, entry in enumerate(entries) if (entry in run.positive_entries) == wanted]


ALWAYS = Schedule(0.0, 1.0)
EVERYWHERE = Scope(Branch.BOTH, ALWAYS)


def tell_branches(model: ModelPatcher) -> None:
    """Lets the patches of `model`, a clone of one's own, find a Run under KEY in their extra_options."""
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, _note_positive), (WrappersMP.CALC_COND_BATCH, _find_positive)):
        model.remove_wrappers_with_key(kind, KEY)  # one serves all patches
        model.add_wrapper_with_key(kind, KEY, wrapper)


def _note_positive(executor: WrapperExecutor, *arguments, **options):
    """Around a guider's whole sampling, whose model_options are its own."""
    guider = executor.class_obj
    patches = guider.model_options["transformer_options"].get("patches", {})
    if unet.PATCHES in patches:
        patches[unet.PATCHES] = _in_order(patches[unet.PATCHES])
    positive = frozenset(conditioning["uuid"] for conditioning in guider.conds.get("positive") or ())
    sampling = guider.model_patcher.get_model_object("model_sampling")
    guider.model_options["transformer_options"][KEY] = Run(positive, sampling.percent_to_sigma)
    with _uncompiled() if TORCH_COMPILE_KWARGS in guider.model_options else nullcontext():
        return executor(*arguments, **options)


def _uncompiled() -> AbstractContextManager:
    """Runs compiled modules as they are written.

    The host has compiled code ignore changes of transformer_options: it would go on without a patch that is new, or
    treat all rows as those it was compiled for.
    """
    logger.warning("the model is compiled, but patches give its layers their embeddings: running it uncompiled")
    return torch.compiler.set_stance("force_eager")


def _in_order(patches: list) -> list:
    """Those that act last behind the others, the newest of them first: of W (I + A) (I + B) c, B is the newer edit."""
    last = [patch for patch in patches if getattr(patch, "acts_last", False)]
    return [patch for patch in patches if patch not in last] + last[::-1]


def _find_positive(executor: WrapperExecutor, model, conditionings: list, x, timestep, model_options: dict):
    """Around every evaluation of a list of conditionings.

    For regional prompts the host lets each one end with copies of the others' entries: its first entry is its own.
    """
    run: Run | None = model_options["transformer_options"].get(KEY)
    if run is not None:
        entries = (place for place, own in enumerate(conditionings) if own and own[0]["uuid"] in run.positive)
        noted = {**model_options["transformer_options"], KEY: replace(run, positive_entries=frozenset(entries))}
        model_options = {**model_options, "transformer_options": noted}
    return executor(model, conditionings, x, timestep, model_options)
