"""Pipelines and schedulers of diffusers, from local files.

pipeline = load_pipeline(Path("models/stable-diffusion-v1-5"))
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput

from ..choices import check_one_of
from ..models.engine import Sampling

logger = logging.getLogger(__name__)

# In a diffusers folder: what it holds.
INDEX = "model_index.json"
# Pixels per latent, in each direction.
VAE_FACTOR = 8

Pipeline: TypeAlias = (
    "diffusers.StableDiffusionPipeline | diffusers.StableDiffusionXLPipeline | diffusers.StableDiffusion3Pipeline | "
    "diffusers.FluxPipeline"
)
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
# What there is of both for SD 3 and Flux, whose own schedulers shift evenly spread steps.
FLOW_SAMPLERS, FLOW_SPACINGS = ("euler",), ("linspace",)


@dataclass(frozen=True)
class PipelineKind:
    """How pipelines of a class are loaded.

    denoiser: the folder of their denoiser. size: pixels in each direction, where that does not tell. on_cuda: in which
    type they run there. unused: what they are loaded without. optional: what they may lack.
    """

    pipeline: Any
    denoiser: str
    size: int
    on_cuda: torch.dtype = torch.float16
    unused: dict[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


# Stable Diffusion 1.x brings a filter of images; many run SD 3 without T5, which is larger than all else.
UNFILTERED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
T5 = ("text_encoder_3", "tokenizer_3")
KINDS = {
    kind.pipeline.__name__: kind
    for kind in (
        PipelineKind(diffusers.StableDiffusionPipeline, "unet", 512, unused=UNFILTERED),
        PipelineKind(diffusers.StableDiffusionXLPipeline, "unet", 1024),
        PipelineKind(diffusers.StableDiffusion3Pipeline, "transformer", 1024, torch.bfloat16, optional=T5),
        PipelineKind(diffusers.FluxPipeline, "transformer", 1024, torch.bfloat16),
    )
}


def best_device() -> str:
    """The fastest device that PyTorch finds here."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def own_size(folder: Path) -> int:
    """Width and height in pixels of the images that the model in a diffusers folder was made for."""
    kind = KINDS.get(pipeline_class(folder), KINDS[diffusers.StableDiffusionPipeline.__name__])
    try:
        config = json.loads((folder / kind.denoiser / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # load_pipeline says what is wrong with the folder
        return kind.size
    return VAE_FACTOR * config["sample_size"] if isinstance(config.get("sample_size"), int) else kind.size


def load_pipeline(model: Path, config: Path | None = None) -> Pipeline:
    """The pipeline in a local diffusers folder, or of a single .safetensors checkpoint with the configuration and the
    tokenizers of such a folder, `config`, of the same family. Nothing is downloaded, unpickled or run from there.

    On CUDA in float16, SD 3 and Flux in bfloat16, but for the VAE, which overflows in SDXL; elsewhere in float32.
    """
    single = model.suffix == ".safetensors" and model.is_file()
    folder = config if single else model
    if folder is None:
        raise ValueError(f"model: for {model.name} give --config too, a diffusers folder of the same family")
    if not (folder / INDEX).is_file():
        raise ValueError(f"model: {folder} is not a diffusers folder, which has a {INDEX}")
    device = best_device()
    try:
        kind = _kind(folder)
        load = partial(_of_checkpoint, config=folder) if single else _of_folder
        pipeline = load(kind, model, kind.on_cuda if device == "cuda" else torch.float32)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes of diffusers' code
        raise ValueError(f"model: diffusers cannot load {model} ({error!r})") from error
    return pipeline.to(device)


def pipeline_class(folder: Path) -> str:
    """The name of the class of the pipeline in a diffusers folder, as its index says; empty where it does not."""
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(content.get("_class_name", "")) if isinstance(content, dict) else ""


def _kind(folder: Path) -> PipelineKind:
    name = pipeline_class(folder)
    if name not in KINDS:
        raise ValueError(
            f"its {INDEX} names {name or 'no pipeline'}; use Stable Diffusion 1.x, 2.x, SDXL, SD 3 or Flux"
        )
    return KINDS[name]


def _of_folder(kind: PipelineKind, folder: Path, dtype: torch.dtype) -> Pipeline:
    missing = [part for part in kind.optional if not (folder / part).is_dir()]
    if missing:
        logger.warning("%s is run without %s, which it does not have", folder, " and ".join(missing))
    unused = {**kind.unused, **dict.fromkeys(missing)}
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, **unused}
    weights = folder / kind.denoiser
    if list(weights.glob("*.fp16.safetensors")) and not list(weights.glob("*model.safetensors")):
        options["variant"] = "fp16"
    return kind.pipeline.from_pretrained(folder, torch_dtype={"default": dtype, "vae": torch.float32}, **options)


def _of_checkpoint(kind: PipelineKind, file: Path, dtype: torch.dtype, config: Path) -> Pipeline:
    pipeline = kind.pipeline.from_single_file(
        str(file), config=str(config), local_files_only=True, torch_dtype=dtype, use_safetensors=True, **kind.unused
    )
    pipeline.vae.to(torch.float32)
    return pipeline


def scheduler_for(own: diffusers.SchedulerMixin, sampling: Sampling) -> diffusers.SchedulerMixin:
    """A new scheduler of the wanted kind, on the noise schedule of the model's own."""
    check_one_of(sampling.sampler, SAMPLERS, "sampler")
    check_one_of(sampling.scheduler, SPACINGS, "scheduler")
    kind, options = SAMPLERS[sampling.sampler]
    return kind.from_config(own.config, timestep_spacing=sampling.scheduler, **options)


class FlowEuler(diffusers.FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]  # diffusers has no types
    """Euler's method for flow matching, called as diffusers' other schedulers are."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample

    def step(
        self, model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor
    ) -> EulerDiscreteSchedulerOutput:
        made = super().step(model_output, timestep, sample)
        denoised = sample - self.sigmas[self.step_index - 1] * model_output
        return EulerDiscreteSchedulerOutput(prev_sample=made.prev_sample, pred_original_sample=denoised)


def flow_scheduler(own: diffusers.SchedulerMixin, sampling: Sampling) -> FlowEuler:
    """The same for SD 3 and Flux. It draws no noise, or an image would depend on its neighbours in the batch."""
    check_one_of(sampling.sampler, FLOW_SAMPLERS, "sampler")
    check_one_of(sampling.scheduler, FLOW_SPACINGS, "scheduler")
    return FlowEuler.from_config(own.config, stochastic_sampling=False)
