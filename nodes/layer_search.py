"""LocoGen Layer Search: which cross-attention layers carry a style, an object or a fact."""

from __future__ import annotations

from pathlib import Path

import comfy.samplers
import comfyui_version
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..loco_core.engine import Sampling
from ..loco_core.files import write_text
from ..loco_core.pictures import contact_sheet, score_plot
from ..loco_core.prompts import ATTRIBUTES, prompt_pairs
from ..loco_core.report import provenance, report_text, result_json, scores_csv
from ..loco_core.search import SearchPlan, search
from .engine import ComfyEngine, samplers
from .progress import SearchProgress, show_text
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
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate="fixed",
                    tooltip="The first seed. All windows are compared on the same seeds. Keep it fixed, or every run "
                    "searches again.",
                ),
                io.Int.Input(
                    "seed_count",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="Images per prompt and window: seed, seed + 1, and so on. More images, surer answer.",
                ),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of every image."),
                io.Float.Input(
                    "cfg", default=7.5, min=1.0, max=100.0, step=0.1, tooltip="Classifier-free guidance scale."
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=samplers(),
                    default="euler",
                    tooltip="Samplers that draw noise at every step are left out: they would draw one noise for all "
                    "images of a batch.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="normal",
                    tooltip="The noise schedule of every image.",
                ),
                io.Int.Input("width", default=512, min=64, max=4096, step=8, tooltip="Image width in pixels."),
                io.Int.Input("height", default=512, min=64, max=4096, step=8, tooltip="Image height in pixels."),
                io.Int.Input(
                    "batch_rows",
                    default=8,
                    min=1,
                    max=1024,
                    tooltip="Images made in one sampler call. As many as your memory takes is fastest.",
                ),
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
        progress = SearchProgress(plan, len(engine.layers), batch_rows, cls.hidden.unique_id)
        # What can fail without the search does so before it: it may take hours.
        path = _result_path(filename_prefix)
        came_from = provenance(engine, scorer.name, f"comfyui {comfyui_version.__version__}")
        result = search(engine, scorer, plan, batch_rows, progress.on_batch, progress.on_step)
        write_text(path, result_json(result, came_from))
        write_text(path.with_suffix(".csv"), scores_csv(plan, result.windows, result.all_scores))
        saved = path.relative_to(folder_paths.get_output_directory()).as_posix()
        report = f"{report_text(result)}\nsaved as {saved}"
        show_text(report, cls.hidden.unique_id)
        plot, sheet = _image(score_plot(result)), _image(contact_sheet(result))
        previews = [*ui.PreviewImage(plot, cls=cls).values, *ui.PreviewImage(sheet, cls=cls).values]
        return io.NodeOutput(result.layers, plot, sheet, report, ui={"images": previews, "text": (report,)})


def _image(picture: np.ndarray) -> torch.Tensor:
    """A uint8 picture [H, W, 3] as the host's IMAGE: float32 [1, H, W, 3] in 0..1."""
    return torch.from_numpy(picture).float().div(255)[None]


def _result_path(prefix: str) -> Path:
    """Where the JSON goes, in the output folder."""
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises nothing more precise
        raise ValueError(f"filename_prefix: {prefix!r} leads out of the output folder; give a name in it") from error
    return Path(folder) / f"{name}_{counter:05}_.json"


NODES = [LayerSearchNode]
