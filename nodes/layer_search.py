"""LocoGen Layer Search: which cross-attention layers carry a style, an object or a fact."""

from __future__ import annotations

import comfyui_version
from comfy_api.latest import io, ui

from ..loco_core.engine import Sampling
from ..loco_core.files import write_text
from ..loco_core.layers import windows
from ..loco_core.pictures import contact_sheet, score_plot
from ..loco_core.prompts import ATTRIBUTES, prompt_pairs
from ..loco_core.report import provenance, report_text, result_json, scores_csv
from ..loco_core.search import SearchPlan, search
from .engine import ComfyEngine, to_image
from .files import output_name, output_path
from .progress import ImageProgress, show_text
from .sampling_inputs import sampling_inputs
from .types import Layers, Scorer


class LayerSearchNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayerSearch",
            display_name="LocoGen Layer Search",
            category="loco",
            description="Finds the few adjacent cross-attention layers that carry a style, an object or a fact: makes "
            "images in which only those layers read the target prompt, and measures where the concept goes away.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                io.Vae.Input("vae", tooltip="The VAE of this model."),
                Scorer.Input("scorer", tooltip="From LoCo CLIP Scorer."),
                io.String.Input(
                    "concept_prompts",
                    multiline=True,
                    default="a painting of a house in the style of Van Gogh",
                    tooltip="Prompts with the concept, one per line. A bare name ('Van Gogh') is expanded with the "
                    "paper's four templates for the attribute. Weights like (word:1.3) count as 1.",
                ),
                io.String.Input(
                    "target_prompts",
                    multiline=True,
                    default="a painting of a house",
                    tooltip="The same prompts without the concept, or with what takes its place: one line for each "
                    "concept prompt, or a single line for all.",
                ),
                io.String.Input("negative_prompt", default="", tooltip="The negative prompt of all images."),
                io.Combo.Input(
                    "attribute",
                    options=list(ATTRIBUTES),
                    default="style",
                    tooltip="Style and object: the window whose images fit the concept prompt least wins. Fact: the "
                    "window whose images fit the target prompt best wins.",
                ),
                io.Int.Input(
                    "window_size",
                    default=2,
                    min=1,
                    max=70,
                    tooltip="How many adjacent layers are changed together (m). The paper uses 2 for SD 1.5, 3 for "
                    "SD 2.1 and 3 to 5 for SDXL.",
                ),
                *sampling_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="loco/search",
                    tooltip="Where the result (.json) and every image's score (.csv) go in the output folder.",
                ),
            ],
            outputs=[
                Layers.Output(display_name="layers", tooltip="The window found, for LocoEdit Apply."),
                io.Image.Output(display_name="plot", tooltip="The score of every window."),
                io.Image.Output(display_name="contact_sheet", tooltip="The images of every window, side by side."),
                io.String.Output(display_name="report", tooltip="What was found, in words and figures."),
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
    ) -> io.NodeOutput:
        engine = ComfyEngine(model, clip, vae)
        plan = SearchPlan(
            pairs=tuple(prompt_pairs(concept_prompts, target_prompts, attribute)),
            seeds=tuple(range(seed, seed + seed_count)),
            attribute=attribute,
            window_size=window_size,
            sampling=Sampling(steps, cfg, sampler_name, scheduler, width, height, negative_prompt),
        )
        each, count = plan.images_per_window, len(windows(len(engine.layers), window_size))
        images, node_id = (1 + count) * each, cls.hidden.unique_id
        intro = f"{images} images: {each} without a change and for each of {count} windows"
        progress = ImageProgress(images, steps, batch_rows, node_id, intro)
        # What can fail without the search does so before it: it may take hours.
        path = output_path(filename_prefix, ".json")
        came_from = provenance(engine, scorer.name, f"comfyui {comfyui_version.__version__}")
        result = search(
            engine,
            scorer,
            plan,
            batch_rows,
            lambda scores, *rest: progress.on_batch(len(scores), *rest),
            progress.on_step,
        )
        write_text(path, result_json(result, came_from))
        write_text(path.with_suffix(".csv"), scores_csv(plan, result.windows, result.all_scores))
        saved = output_name(path)
        report = f"{report_text(result)}\nsaved as {saved}"
        show_text(report, node_id)
        plot, sheet = to_image(score_plot(result)), to_image(contact_sheet(result))
        previews = [*ui.PreviewImage(plot, cls=cls).values, *ui.PreviewImage(sheet, cls=cls).values]
        return io.NodeOutput(result.layers, plot, sheet, report, ui={"images": previews, "text": (report,)})


NODES = [LayerSearchNode]
