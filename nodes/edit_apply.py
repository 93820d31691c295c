"""LocoEdit Apply: edits the K and V weights of chosen layers in closed form."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..loco_core.edit import RELATIVE_LAMBDA, RIDGES, TOKEN_CHOICES, solve_edit
from ..loco_core.prompts import ATTRIBUTES, prompt_pairs
from .engine import apply_edit, encode
from .progress import show_text
from .types import Layers


class EditApplyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditApply",
            display_name="LocoEdit Apply",
            category="loco",
            description="Edits the chosen cross-attention layers in closed form, so that they read the concept as the "
            "target: the style is gone, the rest of the model stays. Nothing is trained, and the model on disk is "
            "not changed. LoRA loaders go before this node.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                Layers.Input(
                    "layers",
                    tooltip="The layers to edit, from LocoGen Layer Search, LoCo Layer Select or LoCo Layers Load.",
                ),
                io.String.Input(
                    "concept",
                    multiline=True,
                    default="Van Gogh",
                    tooltip="What to remove, one per line: a bare name, which the paper's templates of the attribute "
                    "expand, or whole prompts. Weights like (word:1.3) count as 1.",
                ),
                io.String.Input(
                    "target",
                    multiline=True,
                    default="a painting",
                    tooltip="What the layers shall read instead: one line for each concept, or a single line for all. "
                    "For a style, a plain 'a painting'.",
                ),
                io.Combo.Input(
                    "attribute",
                    options=list(ATTRIBUTES),
                    default="style",
                    tooltip="Chooses the templates that expand a bare name.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=list(TOKEN_CHOICES),
                    default=TOKEN_CHOICES[-1],
                    tooltip="Which tokens of the prompts are edited. The paper edits the last subject token; the tail "
                    "(end of text and padding) carries the concept too.",
                ),
                io.Combo.Input(
                    "ridge",
                    options=list(RIDGES),
                    default=RIDGES[0],
                    tooltip="How firmly other prompts hold the weights. 'relative' is measured in the embeddings' own "
                    "size and keeps other concepts; 'paper' is the paper's absolute 0.01. Not a strength knob.",
                ),
                io.Float.Input(
                    "relative_ridge",
                    default=RELATIVE_LAMBDA,
                    min=0.0001,
                    max=10.0,
                    step=0.01,
                    tooltip="With ridge 'relative': the ridge as a share of the embeddings' mean squared norm.",
                ),
                io.Boolean.Input(
                    "keep_target",
                    default=True,
                    tooltip="The target and the empty prompt must read as before: holds the edit to what tells the "
                    "concept from them. The paper's edit has this off, ridge 'paper' and the last subject token alone.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=4.0,
                    step=0.05,
                    tooltip="1 is the edit as solved, 0 leaves the model untouched.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the edit as a weight patch.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        layers,
        concept: str,
        target: str,
        attribute: str,
        tokens: str,
        ridge: str,
        relative_ridge: float,
        keep_target: bool,
        strength: float,
    ) -> io.NodeOutput:
        pairs = prompt_pairs(concept, target, attribute, ("concept", "target"))
        operator = solve_edit(partial(encode, clip), pairs, tokens, ridge, relative_ridge, keep_target)
        edited = apply_edit(model, operator, layers, strength)
        text = (
            f"layers {layers} edited: {len(pairs)} prompts, rank {operator.rank}, "
            f"spectral norm {operator.spectral_norm():.2f}"
            if strength and len(layers)
            else "nothing is edited: strength 0, or no layers"
        )
        show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(edited, ui={"text": (text,)})


NODES = [EditApplyNode]
