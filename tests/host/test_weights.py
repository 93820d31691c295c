"""Weights read as the model uses them, in every format that the host loads and with all patches on them, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import pytest
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from safetensors.torch import load_file, save_file

from loco_core.models.layers import LayerSet

NAME = "diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_k"
LAYERS = LayerSet((8, 9), 16)
DETECT = {"concept": "woodcut", "without": "a picture of a fish\na picture of a star\nhalftone"}
# Inputs that are rotated together; as many as the host takes by itself are more than the demo model has.
GROUPS = dict.fromkeys(("convrot_w4a4", "asym_w4a8_int8"), {"convrot_groupsize": 64})
# Of a weight: float32 products of unit vectors, or bfloat16, in which some formats are computed.
ROUNDING = 1e-2


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return (torch.linalg.norm(seen - expected) / torch.linalg.norm(expected)).item()


@pytest.fixture(autouse=True)
def as_the_host_runs_nodes():
    """The host loads and runs everything so; quantised weights loaded otherwise cannot be moved to a device in it."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def read(pack):
    return pack("nodes.host.weights").effective_weight


@pytest.fixture(scope="module")
def source(host) -> dict[str, torch.Tensor]:
    return load_file(host.folder_paths.get_full_path("checkpoints", "loco_demo.safetensors"))


def tensors(format: str, key: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """What stands for a weight in a file that the host's own tools quantised."""
    own, layout = GROUPS.get(format, {}), QUANT_ALGOS[format]["comfy_tensor_layout"]
    quantised = QuantizedTensor.from_float(weight.to(torch.bfloat16), layout, **own)
    told = torch.tensor(list(json.dumps({"format": format, **own}).encode()), dtype=torch.uint8)
    return {**quantised.state_dict(key), key.replace(".weight", ".comfy_quant"): told}


def older_fp8(scale_input: float | None) -> Callable[[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What stands for it in a scaled fp8 file of 2025."""

    def made(key: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        scale = weight.float().abs().max() / 448
        own = {key: (weight.float() / scale).to(torch.float8_e4m3fn), key.replace(".weight", ".scale_weight"): scale}
        return (
            own if scale_input is None else {**own, key.replace(".weight", ".scale_input"): torch.tensor(scale_input)}
        )

    return made


FORMATS = {format: lambda key, weight, format=format: tensors(format, key, weight) for format in QUANT_ALGOS}
FORMATS |= {"older scaled fp8": older_fp8(None), "older scaled fp8, inputs too": older_fp8(0.0523)}


@pytest.fixture(scope="module", params=FORMATS)
def quantised(request, host, source, tmp_path_factory) -> SimpleNamespace:
    """The demo model with keys and values quantised, through the host's loader.

    Those of the way up: from a first one that is packed the host would read another width of the embeddings.
    """
    prefix, made = "model.diffusion_model.", {}
    for key, weight in source.items():
        inside = key.startswith(f"{prefix}output_blocks") and key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
        made |= FORMATS[request.param](key, weight) if inside else {key: weight}
    if request.param.startswith("older"):
        made[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    path = tmp_path_factory.mktemp("quantised") / "quantised.safetensors"
    save_file({key: value.contiguous() for key, value in made.items()}, path)
    with torch.inference_mode():
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(path))[:3]
    return SimpleNamespace(model=model, clip=clip, vae=vae)


@pytest.fixture(scope="module")
def lora(host, source) -> Path:
    """A LoRA file that changes NAME by a tenth of its size."""
    weight, generator = source[f"model.{NAME}.weight"].float(), torch.Generator().manual_seed(0)
    up, down = (
        torch.randn(weight.shape[0], 2, generator=generator),
        torch.randn(2, weight.shape[1], generator=generator),
    )
    up *= 0.1 * torch.linalg.norm(weight) / torch.linalg.norm(up @ down)
    folder = Path(host.folder_paths.get_output_directory()) / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    path, key = (
        folder / "weights_test.safetensors",
        "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn2_to_k",
    )
    save_file({f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(2.0)}, path)
    return path


def change_of(lora: Path) -> torch.Tensor:
    parts = load_file(lora)
    up, down = (next(value for key, value in parts.items() if f"lora_{side}" in key) for side in ("up", "down"))
    return up @ down


def test_a_quantised_weight_is_what_the_model_multiplies_by(read, quantised):
    kept = quantised.model.get_model_object(NAME).weight
    assert isinstance(kept, QuantizedTensor)
    assert relative(read(quantised.model, NAME), kept.dequantize().float()) <= ROUNDING


def test_search_detection_and_both_exports_take_a_quantised_model(execute, engine_of, quantised):
    neurons = execute("LoCo_NeuronDetect", model=quantised.model, clip=quantised.clip, layers=LAYERS, **DETECT)[0]
    edit = execute("LoCo_EditSolve", clip=quantised.clip, layers=LAYERS, concept="woodcut", preserve="")[0]
    for exported in (
        execute("LoCo_EditExportLoRA", model=quantised.model, edit=edit, filename_prefix="loras/quantised"),
        execute("LoCo_NeuronExportLoRA", model=quantised.model, neurons=neurons, count=64, mode="zero"),
    ):
        assert exported[0].endswith(".safetensors")
    digest = engine_of(quantised.model, quantised.clip, quantised.vae).digest()
    assert digest == engine_of(quantised.model.clone(), quantised.clip, quantised.vae).digest()


@pytest.mark.parametrize("way", ["patched", "added to the outputs"])
def test_a_lora_is_in_the_weight_however_the_host_applies_it(host, read, demo, lora, source, way):
    if way == "patched":
        model = host.nodes.LoraLoaderModelOnly().load_lora_model_only(demo.model, lora.name, 1.0)[0]
    else:
        model, _ = comfy.sd.load_bypass_lora_for_models(demo.model, None, load_file(lora), 1.0, 0.0)
    own = source[f"model.{NAME}.weight"].float()
    assert relative(read(model, NAME), own + change_of(lora)) <= 1e-3  # the file of the model is in float16
    assert relative(read(demo.model, NAME), own) <= 1e-3  # and the model itself is as it was


@pytest.mark.skipif("int8_tensorwise" not in QUANT_ALGOS, reason="the host has no such format yet")
def test_a_lora_beside_a_quantised_weight_is_in_it(read, lora, quantised):
    """Made for these: the weight stays as it is, the LoRA is added to its outputs."""
    own = read(quantised.model, NAME)
    model, _ = comfy.sd.load_bypass_lora_for_models(quantised.model, None, load_file(lora), 1.0, 0.0)
    assert relative(read(model, NAME) - own, change_of(lora)) <= 5e-2  # a difference of two numbers in bfloat16


def packed_bytes(module: torch.nn.Linear) -> None:
    """As GGUF's Q8_0: 34 bytes for 32 numbers, in a module that cannot compute with them."""
    bytes_of = torch.zeros(module.out_features, module.in_features // 32 * 34, dtype=torch.uint8)
    module.weight = torch.nn.Parameter(bytes_of, requires_grad=False)


def two_in_a_byte(module: torch.nn.Linear) -> None:
    """As bitsandbytes' 4 bits: a column of bytes."""
    packed = torch.zeros(module.out_features * module.in_features // 2, 1, dtype=torch.uint8)
    module.weight = torch.nn.Parameter(packed, requires_grad=False)


def not_a_number(module: torch.nn.Linear) -> None:
    module.weight = torch.nn.Parameter(torch.full_like(module.weight, torch.nan), requires_grad=False)


@pytest.mark.parametrize("break_it", [packed_bytes, two_in_a_byte, not_a_number])
def test_what_cannot_be_read_is_said_in_a_sentence_with_what_still_works(host, execute, demo, break_it):
    neurons = execute("LoCo_NeuronDetect", model=demo.model, clip=demo.clip, layers=LAYERS, **DETECT)[0]
    edit = execute("LoCo_EditSolve", clip=demo.clip, layers=LAYERS, concept="woodcut", preserve="")[0]
    model = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[0]
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            break_it(module)
    for node, asked in {
        "LoCo_NeuronDetect": {"clip": demo.clip, "layers": LAYERS, **DETECT},
        "LoCo_EditExportLoRA": {"edit": edit},
        "LoCo_NeuronExportLoRA": {"neurons": neurons, "count": 64, "mode": "zero"},
    }.items():
        with pytest.raises(
            ValueError, match="^model: its weight .* cannot be read .*; load .* 'context' need not read it"
        ):
            execute(node, model=model, **asked)
