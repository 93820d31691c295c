"""LoCo Edit Check: whether an edit removes its concept, and what else it changes, without making an image."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.check import advice_for, check_report
from ..host.edit_check import Measuring
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.sampling import batch_rows_input, seed_input
from ..inputs.shared import CLIP, strength_input
from ..sockets import Edit
from .inputs import EDIT, size_input


class EditCheckNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditCheck",
            display_name="LoCo Edit Check",
            category="loco/edit",
            search_aliases=["test edit", "is it gone", "did it work", "side effects", "check erasure", "verify edit"],
            description="Measures in seconds whether an edit removes its concept, in wordings that it was not solved "
            "on, and how much it changes prompts that are to stay. It makes no images and needs no scorer: it compares "
            "what the model predicts with and without the edit.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the edit is for, before the edit."),
                io.Clip.Input("clip", tooltip=CLIP),
                Edit.Input("edit", tooltip=EDIT),
                strength_input("How much of the edit is applied: 1 is the edit as solved, 0 is none."),
                seed_input(),
                size_input(),
                batch_rows_input(),
            ],
            outputs=[
                io.String.Output(
                    display_name="report",
                    tooltip="Whether the concept is gone, what else changed, and each prompt that was asked.",
                ),
                io.Float.Output(
                    display_name="removed", tooltip="The share of the concept that is removed, in the mean."
                ),
                io.Float.Output(
                    display_name="side_effect",
                    tooltip="How much prompts that are to stay change, as a share of what they do, in the mean.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, clip, edit, strength: float, seed: int, size: int, batch_rows: int) -> io.NodeOutput:
        measuring = Measuring(model, clip, read_layers(model), size, seed, batch_rows, cls.hidden.unique_id)
        found = measuring.checked(edit, strength)
        report = check_report(found, advice_for(edit.recipe))
        return node_output(cls, report, found.mean_removed.mean, found.mean_side.mean, report=report)


NODES = [EditCheckNode]
