"""Pipelines and schedulers of diffusers, from local files.

pipeline = load_pipeline(Path("models/stable-diffusion-v1-5"))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch

from ..choices import check_one_of
from ..models.engine import Sampling

# Pixels per latent, in each direction.
VAE_FACTOR = 8
# Pixels in each direction of Stable Diffusion 1.x, where a folder does not tell.
SIZE = 512

Pipeline: TypeAlias = "diffusers.StableDiffusionPipeline | diffusers.StableDiffusionXLPipeline"
# A model's own configuration must not move the steps elsewhere than asked.
_SPACED = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
# Samplers that draw no noise of their own, each with what a model's own configuration must not change: an image would
# depend on its neighbours in the batch.
SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "euler": (diffusers.EulerDiscreteScheduler, _SPACED),
    "dpm++": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": False, **_SPACED},
    ),
}
# How diffusers spreads the steps over the noise levels; "leading" is what Stable Diffusion's checkpoints ask for.
SPACINGS = ("leading", "linspace", "trailing")


def best_device() -> str:
    """The fastest device that PyTorch finds here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def own_size(folder: Path) -> int:
    """Width and height in pixels of the images that the model in a diffusers folder was made for."""
    try:
        config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # load_pipeline says what is wrong with the folder
        return SIZE
    return VAE_FACTOR * config["sample_size"] if isinstance(config.get("sample_size"), int) else SIZE


def load_pipeline(folder: Path) -> Pipeline:
    """The pipeline in a local diffusers folder; nothing is downloaded, unpickled or run from there.

    On CUDA in float16, but for the VAE, which overflows there in SDXL; elsewhere in float32.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"model: {folder} is not a diffusers folder, which has a model_index.json")
    device = best_device()
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    halved = {"default": torch.float16, "vae": torch.float32}
    options["torch_dtype"] = halved if device == "cuda" else torch.float32
    if list(folder.glob("unet/*.fp16.safetensors")) and not list(folder.glob("unet/*model.safetensors")):
        options["variant"] = "fp16"
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
        if name == diffusers.StableDiffusionPipeline.__name__:
            unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, **options, **unused)
        elif name == diffusers.StableDiffusionXLPipeline.__name__:
            pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, **options)
        else:
            raise ValueError(f"it holds a {name}; use Stable Diffusion 1.x, 2.x or SDXL")
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a damaged or foreign folder makes of diffusers' code
        raise ValueError(f"model: diffusers cannot load {folder} ({error!r})") from error
    return pipeline.to(device)


def scheduler_for(own: diffusers.SchedulerMixin, sampling: Sampling) -> diffusers.SchedulerMixin:
    """A new scheduler of the wanted kind, on the noise schedule of the model's own."""
    check_one_of(sampling.sampler, SAMPLERS, "sampler")
    check_one_of(sampling.scheduler, SPACINGS, "scheduler")
    kind, options = SAMPLERS[sampling.sampler]
    return kind.from_config(own.config, timestep_spacing=sampling.scheduler, **options)
