"""LoCo Erasure Report: whether an edit removed the concept, and what else it changed."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from comfy_api.latest import io

from ...loco_core.comparison.erasure import erasure_report, measure_erasure
from ...loco_core.comparison.pictures import erasure_sheet
from ...loco_core.editing.check import Advice, EditChecker, check_report, prompts_plan
from ...loco_core.files import write_text
from ...loco_core.report import Report
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.layers import read_layers
from ..host.progress import CountProgress, image_progress, node_output, to_image
from ..inputs.shared import filename_prefix_input, image_sockets
from .inputs import ErasureInputs, erasure_inputs

# What was asked of both models, in the lines of the check.
IN_PREDICTION = Advice("prompts, in what the model predicts")


class ErasureReportNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_ErasureReport",
            display_name="LoCo Erasure Report",
            category="loco/compare",
            search_aliases=["erase check", "concept erasure", "before after", "compare models", "test edit"],
            description="Shows whether an edit removed the concept, and what else it changed. It makes the same "
            "images before and after the edit, and answers in a sentence, in figures and in a picture.",
            inputs=[
                io.Model.Input("model_before", tooltip="The model without the edit."),
                io.Model.Input(
                    "model_after", tooltip="The model with the edit, from LoCo Edit Apply or a LoRA loader."
                ),
                *image_sockets(),
                *erasure_inputs(),
                filename_prefix_input(
                    "loco/erasure", "Folder and name of the figures (.json) in the output folder.", advanced=True
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The images before the edit and, below them, after it."),
                io.String.Output(display_name="report", tooltip="The verdict, and the figures behind it."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model_before,
        model_after,
        clip,
        vae,
        scorer,
        batch_rows: int,
        filename_prefix: str,
        **asked,
    ) -> io.NodeOutput:
        before = ComfyEngine(model_before, clip, vae, read_layers(model_before))
        after = ComfyEngine(model_after, clip, vae, read_layers(model_after))
        plan = ErasureInputs(**asked).plan(before.layers)
        path = output_path(filename_prefix, "report.json")  # may fail, so before the images
        check = prompts_plan(plan.pairs, plan.kept, plan.sampling, plan.seeds[0])
        checking = CountProgress(check.rows, cls.hidden.unique_id, "checking the edit")
        checked = check_report(EditChecker(before, check, batch_rows, checking).check_model(after), IN_PREDICTION)
        progress = image_progress(plan.images, plan.sampling.steps, cls.hidden.unique_id)
        result = measure_erasure(before, after, scorer, plan, batch_rows, progress)
        report = checked + erasure_report(result)
        figures = {"report": str(report).splitlines(), "removed": _number(result.removed), "plan": asdict(plan)}
        scored = {"scorer": scorer.name, "scorer_digest": scorer.digest}
        write_text(path, json.dumps({**figures, **scored, "versions": versions()}, indent=2) + "\n")
        report += Report((), (f"saved as {output_name(path)}",))
        sheet = to_image(erasure_sheet(result))
        return node_output(cls, sheet, report, report=report, images=(sheet,))


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else value


NODES = [ErasureReportNode]
