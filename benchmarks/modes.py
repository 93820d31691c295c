"""The same edit as a weight patch, in what the layers read, and as a LoRA in the stock loader: how far they are apart.

Through a real ComfyUI server, by API workflows, as latents in float32.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from demo.comfy_host import node
from demo.jobs import GUIDANCE, SIZE, STEPS
from demo.server import Server

PROMPT = "a drawing of a red star in the style of woodcut"


def modes_difference(server: Server) -> tuple[float, float]:
    """The largest ||x_a - x_b|| / ||x_a - x_unedited|| of the three ways, the least ||x_a - x_unedited|| / ||x_a||."""
    base = {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="loco_demo.safetensors"),
        "layers": node("LoCo_LayerSelect", model=["checkpoint", 0], layers="8-9", preset="as written"),
        "edit": node(
            "LoCo_EditSolve",
            clip=["checkpoint", 1],
            layers=["layers", 0],
            concept="woodcut",
            target="a painting",
            preserve="halftone",
            attribute="style",
            settings="by hand",
            tokens="last subject token and tail",
            preservation="weighted",
            ridge="relative",
            relative_ridge=0.3,
            preserved_tolerance=0.03,
            pooled=False,
            size=0,
        ),
    }
    lora = node(
        "LoCo_EditExportLoRA",
        model=["checkpoint", 0],
        edit=["edit", 0],
        strength=1.0,
        naming="kohya",
        filename_prefix="loras/modes",
        rank=0,
    )
    server.run(base | {"lora": lora})
    newest = max((server.output / "loras").glob("modes_*.safetensors"))
    asked = {
        "model": ["checkpoint", 0],
        "edit": ["edit", 0],
        "strength": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    graph = base | {
        "weights": node("LoCo_EditApply", **asked, mode="weights"),
        "context": node("LoCo_EditApply", **asked, mode="context"),
        "loaded": node("LoraLoaderModelOnly", model=["checkpoint", 0], lora_name=newest.name, strength_model=1.0),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["checkpoint", 1], text=""),
        "latent": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=2),
    }
    ways = {"unedited": "checkpoint", "weights": "weights", "context": "context", "lora": "loaded"}
    for name, model in ways.items():
        graph[f"sample_{name}"] = node(
            "KSampler",
            model=[model, 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=0,
            steps=STEPS,
            cfg=GUIDANCE,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )
        graph[f"save_{name}"] = node("SaveLatent", samples=[f"sample_{name}", 0], filename_prefix=f"modes/{name}")
    outputs = server.run(graph)
    latents = {name: _latent(server, outputs[f"save_{name}"]) for name in ways}
    unedited = latents.pop("unedited")
    effects = {name: (latent - unedited).norm() for name, latent in latents.items()}
    ratios = [
        ((latents[one] - latents[other]).norm() / effects[one]).item()
        for one in latents
        for other in latents
        if one != other
    ]
    return max(ratios), min((effects[name] / latents[name].norm()).item() for name in latents)


def _latent(server: Server, output: dict) -> torch.Tensor:
    (saved,) = output["latents"]
    return load_file(server.output / saved["subfolder"] / saved["filename"])["latent_tensor"].double()
