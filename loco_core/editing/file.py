"""A solved edit as a .safetensors file: its operators as tensors, its recipe and figures as JSON in the metadata.

save_edit(edit, Path("edit.safetensors"), {"torch": torch.__version__})
edit = load_edit(Path("edit.safetensors"))
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..files import read_safetensors, replacing
from ..models.families.unet import UNET
from ..models.layers import LayerSet
from ..prompts import Attribute, NamedConcept, PromptPair
from .closed_form import EditOperator
from .recipe import EditRecipe, EditSettings
from .solve import Edit, EditFigures

FORMAT = "loco_edit 5"
# The operator of the pooled embedding; those of the layers are named by number.
POOLED = "pooled"


def recipe_metadata(edit: Edit, versions: dict[str, str]) -> dict[str, str]:
    """The recipe and the figures as safetensors metadata, for an edit's file and for its LoRA."""
    layers = edit.recipe.layers
    recipe = {
        **asdict(edit.recipe),
        "layers": list(layers),
        "layer_count": layers.layer_count,
        "width": edit.width,
        "model": UNET.model_name(layers.layer_count, edit.width),
    }
    parts = {"loco_recipe": recipe, "loco_figures": asdict(edit.figures), "loco_versions": versions}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in parts.items()}


def save_edit(edit: Edit, path: Path, versions: dict[str, str]) -> None:
    """Writes the file; layers that share an operator share its tensors."""
    distinct = list(dict.fromkeys(edit.operators.values()))
    named = {str(number): operator for number, operator in enumerate(distinct)}
    if edit.pooled is not None:
        named[POOLED] = edit.pooled
    tensors: dict[str, torch.Tensor] = {}
    for name, operator in named.items():
        for side, factor in (("up", operator.up), ("down", operator.down)):
            tensors[f"{name}.{side}"] = factor.clone(memory_format=torch.contiguous_format)  # none may share memory
    numbers = {layer: distinct.index(operator) for layer, operator in edit.operators.items()}
    metadata = {"format": FORMAT, "loco_operators": json.dumps(numbers), **recipe_metadata(edit, versions)}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)


def load_edit(path: Path) -> Edit:
    """The edit in a file of `save_edit`; anything else is refused in one sentence."""
    try:
        metadata, tensors = read_safetensors(path, FORMAT)
        return _edit(metadata, tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"file: {path.name!r} is not an edit saved by LoCo Edit Save ({error})") from error


def _edit(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> Edit:
    content = json.loads(metadata["loco_recipe"])
    recipe, width = _recipe(content), int(content["width"])
    figures = json.loads(metadata["loco_figures"])
    figures = EditFigures(**{**figures, **{name: tuple(map(float, figures[name])) for name in ("room", "parts")}})
    numbers = {int(layer): str(int(number)) for layer, number in json.loads(metadata["loco_operators"]).items()}
    operators = {name: _operator(tensors, name) for name in {key.split(".")[0] for key in tensors}}
    pooled = operators.pop(POOLED, None)
    if numbers.keys() != set(recipe.layers) or set(numbers.values()) != operators.keys() or tensors:
        raise ValueError(f"its tensors are not an edit's: {', '.join([*operators, *tensors]) or 'no operator'}")
    if any(operator.width != width for operator in operators.values()):
        raise ValueError(f"its operators are not {width} wide")
    if len(figures.room) != len(recipe.pairs):
        raise ValueError("its figures belong to another recipe")
    return Edit(recipe, {layer: operators[number] for layer, number in numbers.items()}, width, figures, pooled)


def _recipe(content: dict[str, Any]) -> EditRecipe:
    pairs = tuple(PromptPair(_text(pair["concept"]), _text(pair["target"])) for pair in content["pairs"])
    if not pairs:
        raise ValueError("its recipe has no prompts")
    return EditRecipe(
        pairs,
        tuple(_text(prompt) for prompt in content["preserve"]),
        EditSettings(**content["settings"]),
        LayerSet(tuple(map(int, content["layers"])), int(content["layer_count"])),
        _text(content["text_encoder"]),
        tuple(map(_text, content["taken"])),
        tuple(
            tuple(
                NamedConcept(_text(one["name"]), _text(one["target"]), Attribute.parse(one["attribute"], "attribute"))
                for one in content["named"]
            ),
        ),
        tuple(map(float, content.get("fingerprint", ()))),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _operator(tensors: dict[str, torch.Tensor], name: str) -> EditOperator:
    """Takes an operator's tensors out of `tensors`."""
    up, down = tensors.pop(f"{name}.up", None), tensors.pop(f"{name}.down", None)
    if up is None or down is None or {up.ndim, down.ndim} != {2} or {up.dtype, down.dtype} != {torch.float64}:
        raise ValueError(f"its operator {name!r} is not two float64 matrices")
    if not (torch.isfinite(up).all() and torch.isfinite(down).all()):
        raise ValueError(f"its operator {name!r} has NaN or Inf")
    if up.shape != down.T.shape or up.shape[1] > up.shape[0]:
        raise ValueError(f"its operator {name!r} has factors of shapes {tuple(up.shape)} and {tuple(down.shape)}")
    return EditOperator(up, down)
