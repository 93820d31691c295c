"""Which Engine a pipeline of diffusers is run by."""

from __future__ import annotations

import diffusers

from .engine import DiffusersEngine
from .joint import FluxEngine, SD3Engine
from .pipelines import Pipeline

# Those of others than Stable Diffusion 1.x, 2.x and SDXL.
ENGINES: dict[type, type[DiffusersEngine]] = {
    diffusers.StableDiffusion3Pipeline: SD3Engine,
    diffusers.FluxPipeline: FluxEngine,
}


def engine_for(pipeline: Pipeline) -> DiffusersEngine:
    """An Engine on the pipeline."""
    return ENGINES.get(type(pipeline), DiffusersEngine)(pipeline)
