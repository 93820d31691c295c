"""The methods that are compared: each with its published settings, what of it is free, and how it edits a model.

All of them get the same concept prompts and targets, and the same prompts to preserve.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.edit_bench import ROWS, SAMPLING, Bench, Measured, Task
from loco_core.editing.calibrate import calibrate
from loco_core.editing.recipe import EditSettings, Preservation, Tokens
from loco_core.editing.solve import Edit, solve_edit
from loco_core.editing.token_pairs import token_pairs
from loco_core.models.layers import LayerSet, Part

Params = Mapping[str, Any]

# What a method raises where its settings leave no room, or nothing to invert.
REFUSALS = (ValueError, torch.linalg.LinAlgError)
# The bytes of a number in a file of weights.
HALF = 2
# How often each of a method's settings is tuned.
ROUNDS = 2


@dataclass(frozen=True)
class Size:
    """How many matrices an edit changes, the rank of the changes, at most, and the bytes of a file that brings them to
    another program: of peers the changed matrices, as their authors' scripts write them.
    """

    matrices: int
    rank: int
    file_bytes: int


@dataclass(frozen=True)
class Columns:
    """X_o, X_t and P, [d, n] each in float64. null: the empty prompt's tokens. general: the second moment of the tokens
    of all kinds of prompts, [d, d].
    """

    originals: torch.Tensor
    targets: torch.Tensor
    preserved: torch.Tensor
    null: torch.Tensor
    general: torch.Tensor

    def ridge(self, params: Params) -> float:
        """In the columns' own size where it is a share of that."""
        scale = self.originals.square().sum(0).mean().item() if params["relative"] else 1.0
        return params["ridge"] * scale


# A weight's new value.
Change = Callable[[torch.Tensor, Columns, Params], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """published: its authors' settings. choices: what is free, in the order in which it is tuned; each a few settings.
    change: of a peer; ours have none.
    """

    name: str
    published: Params
    choices: Mapping[str, Sequence[Params]]
    change: Change | None = None


def _each(name: str, values: Sequence[Any]) -> list[Params]:
    return [{name: value} for value in values]


TOKENS = _each("tokens", list(Tokens))
LAYERS = _each("everywhere", (False, True))
PRESERVED = _each("all_tokens", (False, True))
PARTS = _each("part", (Part.VALUES, Part.BOTH))
RIDGES = [{"ridge": ridge, "relative": True} for ridge in (0.03, 0.1, 0.3, 1.0)]

METHODS = {
    method.name: method
    for method in (
        Method(
            "ours",
            vars(EditSettings()) | {"everywhere": False},
            {
                "tokens": TOKENS,
                "layers": LAYERS,
                "preservation": [
                    *({"preservation": Preservation.EXACT, "preserved_tolerance": share} for share in (0.03, 0.1, 0.3)),
                    {"preservation": Preservation.WEIGHTED},
                    {"preservation": Preservation.NONE},
                ],
                "ridge": _each("relative_ridge", (0.03, 0.1, 0.3, 1.0)),
            },
        ),
        Method(
            "authors",
            {
                "tokens": Tokens.LAST_SUBJECT,
                "everywhere": False,
                "part": Part.BOTH,
                "all_tokens": False,
                "ridge": peers.AUTHORS_LAMBDA,
                "relative": False,
            },
            {"tokens": TOKENS, "layers": LAYERS, "ridge": RIDGES},
            lambda weight, given, asked: peers.authors(weight, given.originals, given.targets, given.ridge(asked)),
        ),
        Method(
            "uce",
            {
                "tokens": Tokens.LAST_SUBJECT,
                "everywhere": True,
                "part": Part.BOTH,
                "all_tokens": False,
                "ridge": peers.UCE_LAMBDA,
                "relative": False,
                "retain": peers.UCE_PRESERVE,
            },
            {
                "tokens": TOKENS,
                "preserved": PRESERVED,
                "retain": _each("retain", (0.1, 1.0, 10.0, 100.0)),
                "ridge": RIDGES,
                "layers": LAYERS,
            },
            lambda weight, given, asked: peers.uce(
                weight, given.originals, given.targets, given.preserved, given.ridge(asked), asked["retain"]
            ),
        ),
        Method(
            "speed",
            {
                "tokens": Tokens.LAST_SUBJECT,
                "everywhere": True,
                "part": Part.VALUES,
                "all_tokens": False,
                "threshold": peers.SPEED_THRESHOLD,
            },
            {
                "tokens": TOKENS,
                "preserved": PRESERVED,
                "part": PARTS,
                "threshold": _each("threshold", (0.01, 0.1, 1.0)),
                "layers": LAYERS,
            },
            lambda weight, given, asked: peers.speed(
                weight,
                given.originals,
                given.targets,
                given.preserved,
                peers.SpeedInputs(given.null, asked["threshold"]),
            ),
        ),
        Method(
            "oce",
            {
                "tokens": Tokens.LAST_SUBJECT,
                "everywhere": True,
                "part": Part.VALUES,
                "all_tokens": False,
                "erase": peers.OCE_ERASE,
            },
            {
                "tokens": TOKENS,
                "preserved": PRESERVED,
                "part": PARTS,
                "erase": _each("erase", (50.0, 500.0, 5000.0, 50000.0)),
                "layers": LAYERS,
            },
            lambda weight, given, asked: peers.oce(
                weight, given.originals, given.targets, given.preserved, given.general, asked["erase"]
            ),
        ),
    )
}


DOUBLE_PROJECTIONS = Method(
    "double_projections",
    {
        "tokens": Tokens.LAST_SUBJECT,
        "everywhere": True,
        "part": Part.VALUES,
        "all_tokens": False,
        "left_out": peers.DP_LEFT_OUT,
        "safe": False,
    },
    {
        "tokens": TOKENS,
        "preserved": PRESERVED,
        "left_out": _each("left_out", (0.001, 0.03, 0.1, 0.3)),
        "safe": _each("safe", (False, True)),
    },
    lambda weight, given, asked: peers.double_projections(
        weight,
        given.originals,
        torch.cat([given.targets, given.preserved], 1) if asked["safe"] else given.targets,
        given.preserved,
        asked["left_out"],
    ),
)


def _of_one_weight(method: Method) -> Method:
    """For models in which the prompt's embedding meets one weight."""
    choices = {name: own for name, own in method.choices.items() if name not in ("part", "layers")}
    return replace(method, published={**method.published, "everywhere": True}, choices=choices)


# Of a transformer, the weight by which text comes in.
TEXT_IN_METHODS = {
    method.name: _of_one_weight(method) for method in (METHODS["uce"], METHODS["oce"], DOUBLE_PROJECTIONS)
}


def layers_of(bench: Bench, task: Task, params: Params) -> LayerSet:
    return bench.engine.layers.all if params["everywhere"] else bench.found[task.attribute]


@contextmanager
def edited(bench: Bench, method: Method, task: Task, params: Params) -> Iterator[Size]:
    """The bench's model is edited while the context lasts."""
    if method.change is None:
        settings = EditSettings(**{name: value for name, value in params.items() if name != "everywhere"})
        recipe = bench.recipe(task, settings)
        recipe = replace(recipe, layers=layers_of(bench, task, params))
        with applied(bench, solve_edit(bench.encode, recipe)) as size:
            yield size
        return
    given = columns_of(bench, task, params)
    weights = bench.weights(layers_of(bench, task, params), params["part"])
    before = [weight.clone() for weight in weights]
    try:
        for weight in weights:
            weight.copy_(method.change(weight.cpu().double(), given, params))
        file_bytes = sum(weight.numel() * HALF for weight in weights)
        yield Size(len(weights), max(min(weight.shape) for weight in weights), file_bytes)
    finally:
        for weight, own in zip(weights, before, strict=True):
            weight.copy_(own)


@contextmanager
def applied(bench: Bench, edit: Edit) -> Iterator[Size]:
    """The same for an edit of ours, whose file is a LoRA."""
    tensors = bench.lora(edit)
    file_bytes = sum(tensor.numel() * HALF for tensor in tensors.values())
    with bench.edited(edit):
        yield Size(sum("lora_up" in name for name in tensors), edit.figures.rank, file_bytes)


@contextmanager
def automatic(bench: Bench, task: Task, everywhere: bool = False) -> Iterator[Size]:
    """The bench's model is edited as the product does it: with settings that it measures, without the judge. At the
    layers that know it, or everywhere.
    """
    recipe = replace(bench.recipe(task), layers=layers_of(bench, task, {"everywhere": everywhere}))
    found = calibrate(bench.engine, recipe, SAMPLING, 0, ROWS)
    with applied(bench, found.edit) as size:
        yield size


def columns_of(bench: Bench, task: Task, params: Params) -> Columns:
    """What every method is given, of the tokens that it asks for."""
    recipe = bench.recipe(task)
    concepts, targets = (bench.encode([getattr(pair, side) for pair in recipe.pairs]) for side in ("concept", "target"))
    pairs = [token_pairs(own, other, params["tokens"]) for own, other in zip(concepts, targets, strict=True)]
    originals, instead = (torch.cat(part, 1).double() for part in zip(*pairs, strict=True))
    empty = bench.encode([""])[0].tokens.double().T
    kept = bench.encode(list(dict.fromkeys([*recipe.preserve, *(pair.target for pair in recipe.pairs)])))
    if params["all_tokens"]:
        preserved = torch.cat([*(own.tokens.double().T for own in kept), empty], 1)
    else:
        preserved = torch.stack([own.tokens[own.chunks[-1].last_subject] for own in kept], 1).double()
    return Columns(originals, instead, preserved, empty, bench.general)


def named(params: Params) -> dict[str, str]:
    """For JSON."""
    return {name: str(value) for name, value in params.items()}


def tuned(bench: Bench, method: Method, measured: Mapping[Task, Measured]) -> tuple[Params, list[dict]]:
    """The settings with which a method does best on these tasks, by the mean of `harmonic` and, where that is the same,
    the least side effect. Tuned one after the other from the published ones on, and then once more. What cannot come to
    the best any more is not measured on the tasks left. And all that was measured on the way.
    """
    seen: list[dict] = []
    asked: set[tuple] = set()

    def score(params: Params, to_beat: float) -> tuple[float, float]:
        harmonic, side = np.ones(len(measured)), np.zeros(len(measured))
        for place, (task, own) in enumerate(measured.items()):
            figures = figures_of(task, own, params)
            seen.append({"edit": list(task.concepts), "params": named(params), **figures})
            harmonic[place], side[place] = figures["harmonic"], figures["side"]
            if harmonic.mean() < to_beat:
                break
        return float(harmonic.mean()), -float(side.mean())

    def figures_of(task: Task, own: Measured, params: Params) -> dict[str, float]:
        try:
            with edited(bench, method, task, params):
                return own.now()
        except REFUSALS:
            return own.now()  # what a method refuses to edit is not edited

    best, reached = method.published, (-np.inf, -np.inf)
    for setting in [{}, *itertools.chain(*method.choices.values())] * ROUNDS:
        tried = {**best, **setting}
        key = tuple(sorted(tried.items()))
        if key not in asked:
            asked.add(key)
            found = score(tried, reached[0])
            if found > reached:
                best, reached = tried, found
    return best, seen
