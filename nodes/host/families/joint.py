"""How ComfyUI's transformers are read whose blocks get the text as other parts of the model have changed it."""

from __future__ import annotations

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....loco_core.models.families.joint import CHROMA, FLUX, LUMINA, QWEN_IMAGE, SD3, WAN, JointTransformer
from ....loco_core.models.layers import ModelLayers, TextLayer
from ..compiled import uncompiled
from ..streams import Block, BlockKind

SD3_JOINT = BlockKind(
    ("context", "x"), image="x", text="context", output="x_block.attn.proj", text_first=True, vector="c"
)
DOUBLE = BlockKind((), image="img", text="txt", output="img_attn.proj", own=("pe", "attn_mask"), vector="vec")
SINGLE = BlockKind(("x",), image="x", text=None, output="linear2", own=("pe", "attn_mask"))
QWEN = BlockKind(
    (),
    image="hidden_states",
    text="encoder_hidden_states",
    output="attn.to_out.0",
    own=("image_rotary_emb", "encoder_hidden_states_mask"),
    text_first=True,
)
LUMINA_JOINT = BlockKind(
    ("x", "x_mask", "freqs_cis", "adaln_input"),
    image="x",
    text=None,
    output="attention.out",
    own=("x_mask", "freqs_cis"),
)
WAN_BLOCK = BlockKind(("x",), image="x", text="context", output=None, changes_text=False)
FLUX_BLOCKS = {"double": ("double_blocks", DOUBLE), "single": ("single_blocks", SINGLE)}
# By the host's class: its family, and by kind where its blocks are and how they are called.
MODELS: dict[type[nn.Module], tuple[JointTransformer, dict[str, tuple[str, BlockKind]]]] = {
    MMDiT: (SD3, {"joint": ("joint_blocks", SD3_JOINT)}),
    Flux: (FLUX, FLUX_BLOCKS),
    Chroma: (CHROMA, FLUX_BLOCKS),
    QwenImageTransformer2DModel: (QWEN_IMAGE, {"block": ("transformer_blocks", QWEN)}),
    NextDiT: (LUMINA, {"layer": ("layers", LUMINA_JOINT)}),
    WanModel: (WAN, {"block": ("blocks", WAN_BLOCK)}),
}


def find_layers(model: ModelPatcher) -> ModelLayers | None:
    """The blocks of such a model; None for any other."""
    transformer = uncompiled(model.get_model_object("diffusion_model"))
    if not isinstance(transformer, tuple(MODELS)):
        return None
    family, _ = _known(transformer)
    blocks = blocks_of(transformer)
    modules = dict(transformer.named_modules())
    places = {id(module): name for name, module in modules.items()}
    return ModelLayers(
        layers=tuple(TextLayer(index, *block.address) for index, block in enumerate(blocks)),
        modules=tuple(f"diffusion_model.{places[id(block.module)]}" for block in blocks),
        width=modules[family.text_in].in_features,
        family=family,
        text_in="" if _changes_embedding(transformer, family) else f"diffusion_model.{family.text_in}",
        pooled_in=f"diffusion_model.{family.pooled_in}" if family.pooled_in in modules else "",
    )


def _changes_embedding(transformer: nn.Module, family: JointTransformer) -> bool:
    """Whether it changes the prompt's embedding before the layer by which text comes in."""
    before = (getattr(transformer, name, None) for name in ("txt_norm", "context_processor"))
    return family.normed or any(module is not None for module in before)


def blocks_of(transformer: nn.Module) -> list[Block]:
    """Its blocks, in forward order."""
    _, kinds = _known(transformer)
    refiner = getattr(transformer, "context_refiner", [None])
    return [
        Block((name, number, 0), module, kind, refiner[-1])
        for name, (where, kind) in kinds.items()
        for number, module in enumerate(transformer.get_submodule(where))
    ]


def _known(transformer: nn.Module) -> tuple[JointTransformer, dict[str, tuple[str, BlockKind]]]:
    return next(known for kind, known in MODELS.items() if isinstance(transformer, kind))
