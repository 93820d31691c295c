"""LocoGen Layer Search: which cross-attention layers carry a style, an object or a fact."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...loco_core.localization.pictures import contact_sheet, model_figure, score_plot
from ...loco_core.localization.plan import AUTO, SearchPlan
from ...loco_core.localization.report import report_text, verdict_text
from ...loco_core.localization.strategies import Effort
from ...loco_core.models.engine import Sampling
from ...loco_core.models.layers import Part
from ...loco_core.prompts import Attribute, prompt_pairs
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path
from ..host.layers import read_layers
from ..host.progress import node_output, to_image
from ..host.search import run_search
from ..inputs.sampling import negative_prompt_input, sampling_inputs, seeds_from
from ..inputs.shared import MARKS, MODEL, filename_prefix_input, image_sockets, layers_output


class LayerSearchNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayerSearch",
            display_name="LocoGen Layer Search",
            category="loco",
            search_aliases=["find layers", "which layers", "find style", "find concept", "localize", "causal tracing"],
            description="Finds the few adjacent cross-attention layers that carry a style, an object or a fact. It "
            "makes images in which only these layers get the target prompt, and measures where the concept disappears.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                *image_sockets(),
                io.String.Input(
                    "concept_prompts",
                    multiline=True,
                    default="a painting of a house in the style of Van Gogh\n"
                    "a painting of a ship at sea in the style of Van Gogh",
                    tooltip="Prompts with the concept, one per line. A name alone ('Van Gogh') is expanded with the "
                    "paper's four prompt patterns for the attribute. Weights like (word:1.3) count as 1." + MARKS,
                ),
                io.String.Input(
                    "target_prompts",
                    multiline=True,
                    default="a painting of a house\na painting of a ship at sea",
                    tooltip="The same prompts without the concept, or with what takes its place: one line for each "
                    "concept prompt, or a single line for all." + MARKS,
                ),
                negative_prompt_input(),
                io.Combo.Input(
                    "attribute",
                    options=Attribute,
                    default=Attribute.STYLE,
                    tooltip="What kind of thing the concept is. For a style or an object, the best layers are those "
                    "whose images fit the concept prompt least. For a fact, those whose images fit the target prompt "
                    "best.",
                ),
                io.Int.Input(
                    "window_size",
                    default=2,
                    min=AUTO,
                    max=1000,
                    advanced=True,
                    tooltip="How many adjacent layers change together. The paper uses 2 for SD 1.5, 3 for SD 2.1, and "
                    "3 to 5 for SDXL. 0 finds the size: the search adds layers as long as the effect grows.",
                ),
                *sampling_inputs(),
                filename_prefix_input(
                    "loco/search",
                    "Folder and name of two files in the output folder: the result (.json) and the score of every "
                    "image (.csv).",
                    advanced=True,
                ),
                io.Combo.Input(
                    "effort",
                    options=Effort,
                    default=Effort.BALANCED,
                    optional=True,
                    advanced=True,
                    tooltip="How many images to make. exhaustive: every image of every window. balanced: images of "
                    "fewer steps, most of them where the answer is still open. From 8 images for each window and 20 "
                    "steps on, it takes at most a fifth of the work of exhaustive on SD 1.5, and a tenth on SDXL. "
                    "fast: less still.",
                ),
                io.Combo.Input(
                    "part",
                    options=Part,
                    default=Part.BOTH,
                    optional=True,
                    advanced=True,
                    tooltip="What gets the target prompt: the keys and the values of the layers, as in the paper, or "
                    "one of the two.",
                ),
            ],
            outputs=[
                layers_output("The best window"),
                io.Image.Output(display_name="plot", tooltip="The effect of every window, with its 95 % interval."),
                io.Image.Output(
                    display_name="contact_sheet",
                    tooltip="The images: unmodified, with the target prompt in all layers, and a row for each window.",
                ),
                io.String.Output(display_name="report", tooltip="The verdict, how sure it is, and the best windows."),
                io.Image.Output(display_name="model_figure", tooltip="The U-Net, with its layers coloured by effect."),
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
        scorer,
        concept_prompts: str,
        target_prompts: str,
        negative_prompt: str,
        attribute: str,
        window_size: int,
        seed: int,
        seed_count: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_rows: int,
        filename_prefix: str,
        effort: str = str(Effort.BALANCED),
        part: str = str(Part.BOTH),
    ) -> io.NodeOutput:
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        asked = prompt_pairs(concept_prompts, target_prompts, attribute)
        plan = SearchPlan(
            pairs=asked.pairs,
            seeds=seeds_from(seed, seed_count),
            attribute=attribute,
            window_size=window_size,
            sampling=Sampling(steps, cfg, sampler_name, scheduler, width, height, negative_prompt),
            effort=effort,
            part=part,
            taken=asked.taken,
        )
        path = output_path(filename_prefix, ".json")  # may fail, so before the images
        result = run_search(engine, scorer, plan, batch_rows, path, cls.hidden.unique_id)
        report = f"{report_text(result)}\nsaved as {output_name(path)}"
        plot, sheet = to_image(score_plot(result)), to_image(contact_sheet(result))
        figure = to_image(model_figure(result, engine.layers))
        found = result.layers or ExecutionBlocker(verdict_text(result))  # what needs layers says why it did not run
        return node_output(cls, found, plot, sheet, report, figure, text=report, images=(plot, figure, sheet))


NODES = [LayerSearchNode]
