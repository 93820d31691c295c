"""The pack inside the real ComfyUI, in this process: loaded as ComfyUI loads it, from a folder with a hyphen."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from comfy.clip_vision import ClipVisionModel

from benchmarks.comfy_in_process import share_core
from loco_core.models.layers import LayerSet, Part

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """ComfyUI's modules `nodes` and `folder_paths`, with the pack loaded; output goes to a temporary folder."""
    import folder_paths

    import nodes

    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("output")))
    folder_paths.add_model_folder_path("loras", str(Path(folder_paths.get_output_directory()) / "loras"))
    folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
    installed = tmp_path_factory.mktemp("custom_nodes") / "ComfyUI-Loco"
    installed.symlink_to(ROOT, target_is_directory=True)
    package = str(installed).replace(".", "_x_")
    share_core(package)
    assert asyncio.run(nodes.load_custom_node(str(installed)))
    return SimpleNamespace(nodes=nodes, folder_paths=folder_paths, package=package)


@pytest.fixture(scope="session")
def pack(host: SimpleNamespace):
    """pack("nodes.host.engine") is that module of the loaded pack."""

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"{host.package}.{name}")

    assert host.package in sys.modules
    return module


@pytest.fixture(scope="session")
def execute(host):
    """execute(node id, **inputs) -> the node's outputs, run as the host runs a V3 node without a browser."""

    def run(node_id: str, **inputs):
        node = host.nodes.NODE_CLASS_MAPPINGS[node_id].PREPARE_CLASS_CLONE(None)
        defaults = {
            socket.id: socket.default
            for socket in node.GET_SCHEMA().inputs
            if getattr(socket, "default", None) is not None
        }
        with torch.inference_mode():
            return node.execute(**defaults | inputs).result

    return run


@pytest.fixture(scope="session")
def demo(host: SimpleNamespace) -> SimpleNamespace:
    """The demo model through the stock loader: model, clip, vae."""
    loaded = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")
    return SimpleNamespace(model=loaded[0], clip=loaded[1], vae=loaded[2])


@pytest.fixture(scope="session")
def demo_transformer(host: SimpleNamespace, demo: SimpleNamespace) -> SimpleNamespace:
    """The demo transformer through the stock loader, with the demo model's clip and vae."""
    (model,) = host.nodes.UNETLoader().load_unet("loco_demo_transformer.safetensors", "default")
    return SimpleNamespace(model=model, clip=demo.clip, vae=demo.vae)


@pytest.fixture(scope="session")
def engine_of(pack):
    """engine_of(model, clip, vae) -> a ComfyEngine."""
    engine, layers = pack("nodes.host.engine"), pack("nodes.host.layers")
    return lambda model, clip=None, vae=None: engine.ComfyEngine(model, clip, vae, layers.read_layers(model))


@pytest.fixture(scope="session")
def encoder(pack):
    """encoder(clip) -> encode(prompts), the text embeddings."""
    return lambda clip: partial(pack("nodes.host.text_encoder").encode, clip)


@pytest.fixture(scope="session")
def scope(pack):
    """scope(branch, start, end) -> a Scope."""
    branches = pack("nodes.host.branches")

    def of(branch: str = "both", start: float = 0.0, end: float = 1.0):
        return branches.Scope(branches.Branch.parse(branch, "branch"), branches.Schedule(start, end))

    return of


@pytest.fixture(scope="session")
def inject_in(pack, scope):
    """inject_in(model, conditioning, layers, ...) -> the model whose layers get it, with the node's defaults."""
    injection, layers = pack("nodes.host.injection"), pack("nodes.host.layers")

    def run(
        model,
        conditioning: list,
        chosen: LayerSet | Sequence[int],
        part: str = "keys and values",
        branch: str = "positive",
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        pooled: bool = False,
    ):
        known = layers.read_layers(model)
        chosen = chosen if isinstance(chosen, LayerSet) else LayerSet(tuple(chosen), len(known))
        settings = injection.InjectionSettings(Part.parse(part, "part"), strength, scope(branch, start, end), pooled)
        return injection.inject(model, known, conditioning, chosen, settings)

    return run


@pytest.fixture(scope="session")
def apply_edit(pack):
    """apply_edit(model, edit, strength, mode, start, end) -> the edited model."""
    editing, branches, layers = pack("nodes.host.editing"), pack("nodes.host.branches"), pack("nodes.host.layers")

    def run(model, edit, strength: float = 1.0, mode: str = "weights", start: float = 0.0, end: float = 1.0):
        schedule, asked = branches.Schedule(start, end), editing.EditMode.parse(mode, "mode")
        return editing.apply_edit(model, layers.read_layers(model), edit, strength, asked, schedule)

    return run


@pytest.fixture(scope="session")
def sample(host: SimpleNamespace):
    """sample(model, clip, prompt, seed, ...) -> latents [B, 4, 16, 16], by the stock nodes."""

    @torch.no_grad()
    def run(model, clip, prompt: str, seed: int = 0, steps: int = 4, cfg: float = 2.0, batch: int = 1) -> torch.Tensor:
        encode = host.nodes.CLIPTextEncode().encode
        latent = {"samples": torch.zeros(batch, 4, 16, 16)}
        positive, negative = encode(clip, prompt)[0], encode(clip, "")[0]
        (out,) = host.nodes.common_ksampler(model, seed, steps, cfg, "euler", "normal", positive, negative, latent)
        return out["samples"]

    return run


@pytest.fixture(scope="session")
def fp8(host):
    """The demo model with its U-Net's weights kept as float8."""
    path = host.folder_paths.get_full_path("checkpoints", "loco_demo.safetensors")
    import comfy.sd

    options = {"dtype": torch.float8_e4m3fn}
    return comfy.sd.load_checkpoint_guess_config(path, output_clip=False, output_vae=False, model_options=options)[0]


@pytest.fixture(scope="session")
def vision(tmp_path_factory):
    """vision(projection) -> a small vision tower whose projection is of that width."""

    def build(projection: int) -> ClipVisionModel:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
        shape = {"patch_size": 8, "image_size": 16, "num_channels": 3, "hidden_act": "gelu"}
        path = tmp_path_factory.mktemp("vision") / "config.json"
        path.write_text(json.dumps(sizes | shape | {"projection_dim": projection, "model_type": "clip_vision_model"}))
        return ClipVisionModel(str(path))

    return build


class PackedLinear(torch.nn.Module):
    """A linear layer whose weight is kept in a form of its own, as quantised checkpoints are."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        self.scale = weight.abs().max() / 127
        self.register_buffer("packed", (weight / self.scale).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.packed.to(x) * self.scale).T


@pytest.fixture
def packed(host):
    model = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[0]
    for module in model.model.diffusion_model.modules():
        if hasattr(module, "to_k") and hasattr(module, "to_v"):
            module.to_k, module.to_v = PackedLinear(module.to_k), PackedLinear(module.to_v)
    return model
