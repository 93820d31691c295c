"""How ComfyUI's Cosmos-Predict2 and Anima are read and patched."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.anima.model import Anima
from comfy.ldm.cosmos import predict2
from comfy.model_patcher import ModelPatcher

from ....loco_core.models.families.cosmos import ANIMA, COSMOS_PREDICT2
from ....loco_core.models.layers import ModelLayers, Part, TextLayer
from ..compiled import uncompiled
from ..turns import Turn

# What `address` finds in the options of a patch, for block i: (BLOCK, i), 0.
BLOCK = "block"
# Under which the host's encoder of Anima gives the T5 tokens that the model adapts its output to, and their weights.
ADAPTED_TO, WEIGHTS = "t5xxl_ids", "t5xxl_weights"


def find_layers(model: ModelPatcher) -> ModelLayers | None:
    """The text layers of such a model; None for any other."""
    transformer = uncompiled(model.get_model_object("diffusion_model"))
    if not isinstance(transformer, predict2.MiniTrainDIT):
        return None
    if "transformer_options" not in inspect.signature(predict2.Attention.compute_qkv).parameters:
        raise ValueError("model: this ComfyUI lets nobody change what its layers get; update it to 0.29 or later")
    family = ANIMA if isinstance(transformer, Anima) else COSMOS_PREDICT2
    names = tuple(f"diffusion_model.blocks.{number}.cross_attn" for number in range(len(transformer.blocks)))
    return ModelLayers(
        layers=tuple(TextLayer(number, BLOCK, number, 0) for number in range(len(names))),
        modules=names,
        width=model.get_model_object(f"{names[0]}.{family.projections[Part.KEYS]}").in_features,
        family=family,
    )


@dataclass(frozen=True, eq=False)
class BlockPatch:
    """A patch of text layers as these models call it, with options as a U-Net's."""

    patch: Callable[..., Any]

    @property
    def turn(self) -> Turn:
        return getattr(self.patch, "turn", Turn.MIDDLE)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: dict[str, Any], **_: Any
    ) -> dict[str, torch.Tensor]:
        options = {**extra_options, "block": (BLOCK, extra_options["block_index"]), "block_index": 0}
        return dict(zip("qkv", self.patch(q, k, v, options), strict=True))


def add_patch(model: ModelPatcher, patch: Callable[..., Any]) -> None:
    """Has every text layer of `model` call `patch` before W_K and W_V."""
    model.set_model_attn2_patch(BlockPatch(patch))


@torch.no_grad()
def adapted(
    model: ModelPatcher, states: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """What Anima's blocks get [T, d] for the states [n, d] of its text encoder, the T5 tokens `ids` [m] of a prompt and
    their weights [m], 1 without: T is 512, or m where that is more.
    """
    if not isinstance(uncompiled(model.get_model_object("diffusion_model")), Anima):
        raise ValueError("clip: it is Anima's text encoder, and the model is another; use the CLIP of this model")
    comfy.model_management.load_models_gpu([model])
    device, dtype = model.load_device, model.model.get_dtype_inference()
    weights = torch.ones(len(ids)) if weights is None else weights
    tokens = uncompiled(model.model.diffusion_model).preprocess_text_embeds(
        states[None].to(device, dtype), ids[None].to(device), weights[None, :, None].to(device, dtype)
    )
    return tokens[0].float().cpu()


def adapted_conditioning(model: ModelPatcher, tokens: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """What the layers get [B, T, d] for a conditioning of the host's: its tokens [B, n, d], unless it is of Anima."""
    ids = settings.get(ADAPTED_TO)
    if ids is None:
        return tokens
    return torch.stack([adapted(model, states, ids, settings.get(WEIGHTS)) for states in tokens])
