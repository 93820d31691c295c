"""Remove a Concept: finds where the model holds it, edits it away there, and checks; in one node."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...loco_core.editing.placing import placed
from ...loco_core.editing.recipe import EditSettings, edit_recipe
from ...loco_core.editing.report import calibration_report
from ..host.edit_check import Measuring
from ..host.editing import apply_edit, earlier_edit
from ..host.layers import read_layers
from ..host.progress import node_output
from ..host.text_encoder import text_encoder
from ..inputs.shared import MODEL, layers_output
from ..sockets import Edit
from .inputs import (
    EDIT_CLIP,
    attribute_input,
    concept_input,
    edit_report_output,
    edit_request,
    files_changed_at,
    full_report,
    preserve_input,
    size_input,
    target_input,
)


class RemoveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_Remove",
            display_name="LoCo Remove a Concept",
            category="loco",
            search_aliases=[
                "remove style",
                "remove artist",
                "remove object",
                "remove concept",
                "erase",
                "erase style",
                "delete concept",
                "erase concept",
                "concept erasure",
                "forget a style",
                "unlearn",
                "forget",
                "van gogh",
                "locogen",
                "locoedit",
            ],
            description="Removes a style or an object from the model. It measures which few layers hold it, edits only "
            "those, with the settings that suit this model, and says whether it is gone and the rest is kept. Nothing "
            "is trained, and the model on disk does not change.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Clip.Input("clip", tooltip=EDIT_CLIP),
                concept_input(),
                preserve_input(),
                attribute_input(advanced=True),
                target_input(advanced=True),
                size_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The edited model, for the sampler."),
                edit_report_output(checked=True),
                layers_output("The layers that were edited"),
                Edit.Output(display_name="edit", tooltip="To save or export what was done, or to check it again."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, concept=None, target=None, preserve=None, **others) -> list[float]:
        return files_changed_at(concept, target, preserve)

    @classmethod
    def execute(cls, model, clip, concept: str, preserve: str, attribute: str, target: str, size: int) -> io.NodeOutput:
        request = edit_request(concept, target, preserve, attribute)
        measuring = Measuring(model, clip, read_layers(model), size, node_id=cls.hidden.unique_id)
        everywhere = edit_recipe(request, EditSettings(), measuring.layers.all, text_encoder(clip))
        recipe, where = placed(everywhere, measuring.located(everywhere))
        if recipe is None:
            where = earlier_edit(model) + where
            return node_output(cls, model, where, *[ExecutionBlocker(where.brief)] * 2, report=where)
        calibration = measuring.calibrated(recipe)
        edit = calibration.edit
        report = earlier_edit(model) + where + full_report(edit, calibration_report(calibration), measuring)
        edited = apply_edit(model, measuring.layers, edit, strength=1.0)
        return node_output(cls, edited, report, edit.recipe.layers, edit, report=report)


NODES = [RemoveNode]
