"""For a server in tests: the stock loaders give narrow models for files that workflows name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

# The files, by the folder in which their loader looks for them, and which model is in their place.
FILES = {
    "checkpoints": {
        "v1-5-pruned-emaonly.safetensors": "sd15",
        "sd_xl_base_1.0.safetensors": "sdxl",
        "flux1-dev-fp8.safetensors": "flux",
        "sd3.5_large_fp8_scaled.safetensors": "sd3",
    },
    "diffusion_models": {
        "z_image_turbo_bf16.safetensors": "z_image",
        "qwen_image_fp8_e4m3fn.safetensors": "qwen",
        "anima-base-v1.0.safetensors": "anima",
    },
    "text_encoders": {
        "qwen_3_4b.safetensors": "z_image",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors": "qwen",
        "qwen_3_06b_base.safetensors": "anima",
    },
    "vae": {"ae.safetensors": "z_image", "qwen_image_vae.safetensors": "anima"},
}
# The stock loader of each folder: its class, its function, and what of a model it gives.
LOADERS = {
    "checkpoints": ("CheckpointLoaderSimple", "load_checkpoint", ("model", "clip", "vae")),
    "diffusion_models": ("UNETLoader", "load_unet", ("model",)),
    "text_encoders": ("CLIPLoader", "load_clip", ("clip",)),
    "vae": ("VAELoader", "load_vae", ("vae",)),
}
CUSTOM_NODE = """import sys

sys.path += {paths!r}
from host.browser.narrow_models import replace_loaders

replace_loaders()
NODE_CLASS_MAPPINGS = {{}}
"""


def install(folder: Path) -> None:
    """Puts empty files where the loaders look, in a server's base folder, and a custom node that replaces these."""
    for kind, files in FILES.items():
        (folder / "models" / kind).mkdir(parents=True, exist_ok=True)
        for name in files:
            (folder / "models" / kind / name).touch()
    node = folder / "custom_nodes" / "narrow_models" / "__init__.py"
    node.parent.mkdir(parents=True, exist_ok=True)
    tests = Path(__file__).parents[2]
    node.write_text(CUSTOM_NODE.format(paths=[str(tests.parent), str(tests)]))


def replace_loaders() -> None:
    """In the server."""
    import nodes

    for kind, (loader, function, parts) in LOADERS.items():
        own = getattr(getattr(nodes, loader), function)
        setattr(getattr(nodes, loader), function, _narrow(own, FILES[kind], parts))


def _narrow(own: Callable[..., tuple], files: dict[str, str], parts: tuple[str, ...]) -> Callable[..., tuple]:
    from host.narrow_unets import sd15_model, sdxl_model
    from host.transformers.narrow import SHALLOW

    models = {"sd15": cache(sd15_model), "sdxl": cache(sdxl_model), **SHALLOW}

    @wraps(own)
    def load(self: Any, *args: Any, **kwargs: Any) -> tuple:
        name = next((files[value] for value in (*args, *kwargs.values()) if value in files), None)
        if name is None:
            return own(self, *args, **kwargs)
        model = models[name]()
        return tuple(getattr(model, part) for part in parts)

    return load
