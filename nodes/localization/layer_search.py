"""LoCo Layer Search: which cross-attention layers carry a style, an object or a fact."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...loco_core.localization.pictures import contact_sheet, search_picture
from ...loco_core.localization.plan import AUTO, Effort, SearchPlan
from ...loco_core.localization.probe_report import block_report
from ...loco_core.localization.report import search_report, verdict_text
from ...loco_core.models.engine import Sampling
from ...loco_core.prompts import Attribute, prompt_pairs
from ...loco_core.report import Report
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path
from ..host.layers import image_sides, read_layers
from ..host.progress import node_output, to_image
from ..host.search import run_search
from ..inputs.sampling import batch_rows_input, negative_prompt_input, run_inputs, seeds_from, size_inputs
from ..inputs.shared import ANY_MODEL, filename_prefix_input, image_sockets
from .inputs import found_outputs, levels_input, pair_inputs, part_input


class LayerSearchNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayerSearch",
            display_name="LoCo Layer Search",
            category="loco/find layers",
            search_aliases=[
                "locogen layer search",
                "where is it",
                "locate",
                "find layers",
                "which layers",
                "find style",
                "find style layers",
                "locate style",
                "layers of a style",
                "find concept",
                "localize",
                "causal tracing",
            ],
            description="Finds the few cross-attention layers that carry a style, an object or a fact: it measures "
            "which of them make the difference between two prompts, and shows in images whether it is so.",
            inputs=[
                io.Model.Input("model", tooltip=ANY_MODEL),
                *image_sockets(
                    " With it, the images are scored: it confirms what was found, or not. Only effort exhaustive "
                    "needs it.",
                    scorer_optional=True,
                ),
                *pair_inputs(
                    "a painting of a house in the style of Van Gogh\n"
                    "a painting of a ship at sea in the style of Van Gogh",
                    "a painting of a house\na painting of a ship at sea",
                ),
                *size_inputs(),
                io.Combo.Input(
                    "attribute",
                    options=Attribute,
                    default=Attribute.STYLE,
                    advanced=True,
                    tooltip="What a name alone stands for, and how images are scored: those of a style or an object "
                    "against the concept prompt, which they should fit less; those of a fact against the target "
                    "prompt, which they should fit better.",
                ),
                negative_prompt_input(),
                io.Int.Input(
                    "window_size",
                    default=AUTO,
                    min=AUTO,
                    max=1000,
                    advanced=True,
                    tooltip="How many adjacent layers to look for. 0 finds the number: the fewest that make the "
                    "difference. The paper uses 2 for SD 1.5, 3 for SD 2.1, and 3 to 5 for SDXL.",
                ),
                io.Combo.Input(
                    "effort",
                    options=Effort,
                    default=Effort.PROBE,
                    advanced=True,
                    tooltip="probe: measure windows in what the model predicts, which takes as long as a few images, "
                    "and confirm the best in images. exhaustive: the paper's search, which makes all images of every "
                    "window and compares their scores; it needs a scorer and takes many times as long.",
                ),
                levels_input(),
                part_input(),
                *run_inputs(advanced=True),
                batch_rows_input(),
                filename_prefix_input(
                    "loco/search",
                    "Folder and name of three files in the output folder: the result (.json), a line for every image "
                    "(.csv), and the images (.png).",
                    advanced=True,
                ),
            ],
            outputs=[
                *found_outputs(),
                io.Image.Output(
                    display_name="plot",
                    tooltip="The model with its layers coloured by effect. Below it the share of every window at every "
                    "noise level; with effort exhaustive, the effect of every window in scores, with its 95 % "
                    "interval.",
                ),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="The images: unmodified, with the target prompt in all layers, in the window found, and "
                    "in those that it is compared with; eight rows at most, all of them in the file.",
                ),
                io.String.Output(display_name="report", tooltip="The verdict, how sure it is, and the best windows."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        concept_prompts: str,
        target_prompts: str,
        width: int,
        height: int,
        attribute: str,
        negative_prompt: str,
        window_size: int,
        effort: str,
        levels: int,
        part: str,
        seed: int,
        seed_count: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        batch_rows: int,
        filename_prefix: str,
        scorer=None,
    ) -> io.NodeOutput:
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        sides = image_sides(engine.layers, width, height)
        asked = prompt_pairs(concept_prompts, target_prompts, attribute)
        plan = SearchPlan(
            pairs=asked.pairs,
            seeds=seeds_from(seed, seed_count),
            attribute=attribute,
            sampling=Sampling(steps, cfg, sampler_name, scheduler, *sides, negative_prompt),
            window_size=window_size,
            effort=effort,
            levels=levels,
            part=part,
            taken=asked.taken,
        )
        path = output_path(filename_prefix, ".json")  # may fail, so before the images
        result = run_search(engine, scorer, plan, batch_rows, path, cls.hidden.unique_id)
        report = search_report(result) + block_report(engine.layers, result.layers, result.smallest)
        report += Report((), (f"saved as {output_name(path)}",))
        plot, sheet = to_image(search_picture(result, engine.layers)), to_image(contact_sheet(result))
        # what needs layers says why it did not run
        found = [layers or ExecutionBlocker(verdict_text(result)) for layers in (result.layers, result.smallest)]
        return node_output(cls, *found, plot, sheet, report, report=report, images=(plot, sheet))


NODES = [LayerSearchNode]
