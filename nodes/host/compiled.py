"""Models that another node has compiled with torch.compile."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS

logger = logging.getLogger(__name__)


def uncompiled(module: torch.nn.Module) -> torch.nn.Module:
    """The module as it was before torch.compile, which wraps it in another."""
    return getattr(module, "_orig_mod", module)


def is_compiled(model: ModelPatcher, options: dict[str, Any]) -> bool:
    """Whether a run of `model` with these model_options is of compiled code."""
    whole = model.get_model_object("diffusion_model")
    return TORCH_COMPILE_KWARGS in options or uncompiled(whole) is not whole


def run_uncompiled() -> AbstractContextManager:
    """Runs compiled modules as they are written.

    The host has compiled code ignore changes of transformer_options, and torch ignore hooks that come and go: it would
    go on without a patch that is new, or treat all rows as those it was compiled for.
    """
    if not hasattr(torch.compiler, "set_stance"):
        raise ValueError(
            f"model: it is compiled, and PyTorch {torch.__version__} cannot run it uncompiled while some of its layers "
            "are changed; take TorchCompileModel out, or update PyTorch to 2.6 or later"
        )
    logger.warning("the model is compiled, but some of its layers are changed as it runs: running it uncompiled")
    return torch.compiler.set_stance("force_eager")
