"""ComfyUI in this process, with the pack loaded as ComfyUI loads it."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
# Parts of loco_core that no node uses: they need other packages.
NOT_OF_NODES = ("loco_core.commands", "loco_core.diffusers_host", "loco_core.__main__")


def share_core(package: str) -> None:
    """Lets the pack use the loco_core of its caller: the classes and choices of a second copy would be others."""
    core = importlib.import_module("loco_core")
    names = [found.name for found in pkgutil.walk_packages(core.__path__, "loco_core.")]
    for name in ("loco_core", *(name for name in names if not name.startswith(NOT_OF_NODES))):
        sys.modules[f"{package}.{name}"] = importlib.import_module(name)


def host_in_process(comfyui: str) -> tuple[Callable[[str], ModuleType], SimpleNamespace]:
    """On the CPU. pack(name) -> a module of the loaded pack; the demo's model, clip, vae."""
    sys.path.insert(0, comfyui)
    from comfy.cli_args import args

    args.cpu = args.use_pytorch_cross_attention = True
    import utils.extra_config  # noqa: F401 - before `nodes`, or the host's `utils` is not found

    import nodes

    installed = Path(tempfile.mkdtemp()) / "ComfyUI-Loco"
    installed.symlink_to(ROOT, target_is_directory=True)
    name = str(installed).replace(".", "_x_")
    share_core(name)
    if not asyncio.run(nodes.load_custom_node(str(installed))):
        raise RuntimeError(f"{comfyui} did not load the pack")
    model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[:3]
    return lambda module: importlib.import_module(f"{name}.{module}"), SimpleNamespace(model=model, clip=clip, vae=vae)
