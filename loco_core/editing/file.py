"""A solved edit as a .safetensors file: its operators as tensors, its recipe and figures as JSON in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..files import replacing
from ..models.layers import LayerSet
from ..models.presets import family_name
from ..prompts import PromptPair
from .closed_form import EditOperator
from .edit import Edit, EditFigures, EditRecipe, EditSettings

FORMAT = "loco_edit 1"
OPERATORS = ("operator", "pooled")


def recipe_metadata(edit: Edit, versions: dict[str, str]) -> dict[str, str]:
    """The recipe and the figures as safetensors metadata, for an edit's file and for its LoRA."""
    recipe = {
        **asdict(edit.recipe),
        "layers": list(edit.recipe.layers),
        "layer_count": edit.recipe.layers.layer_count,
        "model_family": family_name(edit.recipe.layers.layer_count, edit.operator.width),
    }
    parts = {"loco_recipe": recipe, "loco_figures": asdict(edit.figures), "loco_versions": versions}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in parts.items()}


def save_edit(edit: Edit, path: Path, versions: dict[str, str]) -> None:
    tensors = {}
    for name in OPERATORS:
        operator = getattr(edit, name)
        if operator is not None:
            tensors |= {f"{name}.up": operator.up.contiguous(), f"{name}.down": operator.down.contiguous()}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata={"format": FORMAT, **recipe_metadata(edit, versions)})


def load_edit(path: Path) -> Edit:
    """The edit in a file of `save_edit`; anything else is refused in one sentence."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        recipe = _recipe(json.loads(metadata["loco_recipe"]))
        figures = json.loads(metadata["loco_figures"])
        figures = EditFigures(**{**figures, "room": tuple(map(float, figures["room"]))})
        operators = {name: _operator(tensors, name) for name in OPERATORS}
        if tensors or operators["operator"] is None:
            raise ValueError(f"its tensors are not an edit's: {', '.join(tensors) or 'no operator'}")
        if len(figures.room) != len(recipe.pairs):
            raise ValueError("its figures belong to another recipe")
        return Edit(recipe, figures=figures, **operators)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"file: {path.name!r} is not an edit saved by LoCo Edit Save ({error})") from error


def _recipe(content: dict) -> EditRecipe:
    pairs = tuple(PromptPair(_text(pair["concept"]), _text(pair["target"])) for pair in content["pairs"])
    if not pairs:
        raise ValueError("its recipe has no prompts")
    return EditRecipe(
        pairs,
        tuple(_text(prompt) for prompt in content["preserve"]),
        EditSettings(**content["settings"]),
        LayerSet(tuple(map(int, content["layers"])), int(content["layer_count"])),
        _text(content["text_encoder"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _operator(tensors: dict[str, torch.Tensor], name: str) -> EditOperator | None:
    """Takes an operator's tensors out of `tensors`."""
    up, down = (tensors.pop(f"{name}.{part}", None) for part in ("up", "down"))
    if up is None and down is None:
        return None
    for part in (up, down):
        if part is None or part.ndim != 2 or part.dtype != torch.float64:
            raise ValueError(f"its {name} is not two float64 matrices")
        if not torch.isfinite(part).all():
            raise ValueError(f"its {name} has NaN or Inf")
    if up.shape != down.T.shape or up.shape[1] > up.shape[0]:
        raise ValueError(f"its {name} has factors of shapes {tuple(up.shape)} and {tuple(down.shape)}")
    return EditOperator(up, down)
