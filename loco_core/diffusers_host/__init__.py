"""diffusers as the program that runs the model."""

from __future__ import annotations

from .demo_model import SCORER as DEMO_SCORER
from .demo_model import demo_pipeline
from .engine import AblatedEngine, DiffusersEngine
from .engines import engine_for
from .pipelines import load_pipeline

__all__ = ["DEMO_SCORER", "AblatedEngine", "DiffusersEngine", "demo_pipeline", "engine_for", "load_pipeline"]
