"""An edit of a full-size model, solved on its own text towers: each way to apply it, and each kind of weight."""

from __future__ import annotations

import time
from pathlib import Path

import comfy.lora
import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_merging import ModelSave
from comfy_extras.nodes_torch_compile import TorchCompileModel

from host.full_size.measures import Agreement, Cost, Loaded, agreement, cost, load, relative, sample

# In one process: two full-size models do not fit into memory.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]

THREE = pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
SD15 = pytest.mark.parametrize("family", ["sd15"])
PROMPT, OTHER = "a painting of a house in the style of Van Gogh", "a photo of a cat"
# Of an edit, the least share of the latent: differences from it mean something.
EFFECT = 1e-2
MODES = ("weights", "context")


@pytest.fixture(scope="session")
def solved(execute):
    """solved(family, loaded) -> an edit of the style's preset layers that preserves nothing, solved once per family.

    Of random weights it changes a prompt's latents by more than any type of weights rounds; one that keeps the default
    prompts does not.
    """
    known: dict[str, object] = {}

    def run(family: str, loaded: Loaded):
        if family not in known:
            (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, preset="style")
            known[family], _ = execute("LoCo_EditSolve", clip=loaded.clip, layers=layers, concept=PROMPT, preserve="")
        return known[family]

    return run


@pytest.fixture
def encode(host):
    return lambda clip, prompt: host.nodes.CLIPTextEncode().encode(clip, prompt)[0]


@pytest.fixture
def by_lora(host, execute):
    """by_lora(model, edit) -> the model with the exported LoRA of the edit from the stock loader."""

    def run(model: ModelPatcher, edit) -> ModelPatcher:
        name, _ = execute("LoCo_EditExportLoRA", model=model, edit=edit, filename_prefix="loras/full_size")
        path = Path(host.folder_paths.get_output_directory()) / name
        host.folder_paths.add_model_folder_path("loras", str(path.parent))
        return host.nodes.LoraLoaderModelOnly().load_lora_model_only(model, path.name, 1.0)[0]

    return run


@pytest.fixture
def in_both_modes(execute):
    """in_both_modes(model, edit, prompt) -> how well the latents of the two modes agree."""

    def run(model: ModelPatcher, edit, prompt: list) -> Agreement:
        edited = (execute("LoCo_EditApply", model=model, edit=edit, mode=mode)[0] for mode in MODES)
        return agreement(sample(model, prompt), *(sample(one, prompt) for one in edited))

    return run


@pytest.mark.parametrize("family", ["sdxl"])
def test_the_default_edit_of_sdxl_takes_little_memory(pack, execute, loaded, family, record_property, monkeypatch):
    """From solving until the host has patched the weights; encoding the prompts is timed apart, too."""
    (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, preset="style")
    node, encoding = pack("nodes.editing.inputs"), Cost()
    encode = node.encode
    comfy.model_management.load_models_gpu([loaded.model, loaded.clip.patcher])
    encode(loaded.clip, ["weights are read from the file at their first use, which is not the edit's doing"])

    def timed(clip, prompts):
        begun = time.perf_counter()
        embeddings = encode(clip, prompts)
        encoding.seconds += time.perf_counter() - begun
        return embeddings

    monkeypatch.setattr(node, "encode", timed)
    with cost() as measured:
        edit, _ = execute("LoCo_EditSolve", clip=loaded.clip, layers=layers)
        edited, _ = execute("LoCo_EditApply", model=loaded.model, edit=edit)
        comfy.model_management.load_models_gpu([edited])
    record_property("sdxl_edit_seconds", measured.seconds)
    record_property("sdxl_encode_seconds", encoding.seconds)
    record_property("sdxl_extra_mb", measured.extra_mb)
    assert edit.recipe.layers.indices == (45, 46, 47)
    if measured.extra_mb is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert measured.extra_mb <= 200


@pytest.mark.parametrize("family", ["sdxl"])
def test_a_second_solve_of_sdxl_encodes_the_line_that_changed_alone(execute, loaded, family, record_property):
    (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, preset="style")
    things, seconds = ["a woman", "a man", "a cat", "a dog", "a house", "a street", "a forest"], []
    for last in ("the sea", "a river"):
        preserve = "\n".join(f"a drawing of {thing}" for thing in (*things, last))
        begun = time.perf_counter()
        execute("LoCo_EditSolve", clip=loaded.clip, layers=layers, concept="Monet", preserve=preserve)
        seconds.append(time.perf_counter() - begun)
    record_property("second_solve_share", seconds[1] / seconds[0])
    assert seconds[1] <= 0.2 * seconds[0]  # 2 of 22 prompts are encoded anew; the rest is the solve, and a busy machine


@THREE
def test_weights_context_and_lora_are_the_same_edit_of_float16_weights(
    execute, solved, by_lora, encode, loaded_float16, family, record_property
):
    model, edit = loaded_float16.model, solved(family, loaded_float16)
    assert model.model_dtype() == torch.float16
    prompt = encode(loaded_float16.clip, PROMPT)
    models = [execute("LoCo_EditApply", model=model, edit=edit, mode=mode)[0] for mode in MODES]
    unedited, *edited = (sample(one, prompt) for one in (model, *models, by_lora(model, edit)))
    agreed = agreement(unedited, *edited)
    record_property(f"modes_difference_{family}", agreed.difference)
    assert agreed.effect >= EFFECT
    assert agreed.difference <= 5e-2  # an edited weight is rounded to float16 again, what a layer reads is not


@THREE
def test_an_edit_with_the_pooled_embedding_does_the_same_in_both_modes(execute, in_both_modes, encode, loaded, family):
    """Where the family has one: the others say that they have none."""
    (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, preset="style")
    asked = {"layers": layers, "concept": PROMPT, "preserve": "", "pooled": True}
    edit, _ = execute("LoCo_EditSolve", clip=loaded.clip, **asked)
    if family == "sdxl":
        agreed = in_both_modes(loaded.model, edit, encode(loaded.clip, PROMPT))
        assert agreed.effect >= EFFECT
        assert agreed.difference <= 1e-3  # float32 sums in another order
    else:
        with pytest.raises(ValueError, match="pooled: this model gets no pooled embedding; switch it off"):
            execute("LoCo_EditApply", model=loaded.model, edit=edit)


@pytest.mark.parametrize("family", ["sd15_inpainting", "sdxl_refiner"])
def test_a_relative_of_the_three_families_is_edited_in_both_modes(execute, in_both_modes, encode, loaded):
    (layers, _) = execute("LoCo_LayerSelect", model=loaded.model, layers="8-9")
    edit, _ = execute("LoCo_EditSolve", clip=loaded.clip, layers=layers, concept=PROMPT, preserve="")
    agreed = in_both_modes(loaded.model, edit, encode(loaded.clip, PROMPT))
    assert agreed.effect >= EFFECT
    assert agreed.difference <= 1e-3  # float32 sums in another order


# --- kinds of weights -------------------------------------------------------------------------------------------------

# Between the modes: an edited weight is rounded to its type again, to 24, 11, 8 or 4 significant bits.
ROUNDING = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.1, torch.float8_e4m3fn: 0.5}


@SD15
@pytest.mark.parametrize("dtype", ROUNDING)
def test_weights_of_every_type_are_edited_alike_in_both_modes(solved, in_both_modes, encode, loaded, family, dtype):
    edit = solved(family, loaded)
    kept = load(family, dtype).model
    weight = kept.get_model_object("diffusion_model.output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight")
    assert weight.dtype == dtype
    agreed = in_both_modes(kept, edit, encode(loaded.clip, PROMPT))
    assert agreed.effect >= EFFECT
    assert agreed.difference <= ROUNDING[dtype]


@pytest.fixture
def small_card(monkeypatch):
    """small_card(share) makes the host keep only that share of a model's weights on the device.

    It patches the others whenever it reads them, as with --lowvram. A CPU has the weights where it computes, so what
    moves them to a device is not tried here.
    """
    whole = ModelPatcher.partially_load

    def run(share: float) -> None:
        def partially_load(self: ModelPatcher, device: torch.device, extra_memory: float = 0, **options):
            room = max(share * self.model_size(), 0.1) - self.model.model_loaded_weight_memory
            return whole(self, device, min(extra_memory, room), **options)

        comfy.model_management.unload_all_models()
        monkeypatch.setattr(ModelPatcher, "partially_load", partially_load)

    yield run
    comfy.model_management.unload_all_models()


@SD15
@pytest.mark.parametrize("share", [0.5, 0.0], ids=["half of the weights", "no weights"])
@pytest.mark.parametrize("mode", MODES)
def test_a_model_loaded_in_part_is_edited_as_a_whole_one(
    execute, solved, small_card, encode, loaded, family, mode, share
):
    edit = solved(family, loaded)
    prompt = encode(loaded.clip, PROMPT)
    edited, _ = execute("LoCo_EditApply", model=loaded.model, edit=edit, mode=mode)
    unedited, whole = sample(loaded.model, prompt), sample(edited, prompt)
    inside = loaded.model.model
    assert not inside.model_lowvram
    small_card(share)
    partly = sample(edited, prompt)
    assert inside.model_lowvram
    assert (inside.lowvram_patch_counter > 0) == (mode == "weights")
    assert agreement(unedited, whole, partly).difference <= 1e-3  # float32 sums in another order


@SD15
def test_a_saved_edited_model_comes_back_with_the_edit_in_it(host, execute, solved, encode, loaded_float16, family):
    edit = solved(family, loaded_float16)
    prompt = encode(loaded_float16.clip, PROMPT)
    edited, _ = execute("LoCo_EditApply", model=loaded_float16.model, edit=edit)
    ModelSave().save(edited, "diffusion_models/full_size")
    (path,) = Path(host.folder_paths.get_output_directory()).glob("diffusion_models/full_size*.safetensors")
    try:
        saved = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float16})
        expected, unedited = sample(edited, prompt), sample(loaded_float16.model, prompt)
        assert relative(expected - unedited, unedited) >= EFFECT
        assert torch.equal(sample(saved, prompt), expected)
    finally:
        path.unlink()  # 1.7 GB


# --- torch.compile ----------------------------------------------------------------------------------------------------


def compiled(model: ModelPatcher) -> ModelPatcher:
    """By the stock node; 'eager' traces and guards the model as 'inductor' does, without minutes of compiling."""
    return TorchCompileModel.execute(model, "eager").result[0]


@SD15
def test_a_compiled_model_takes_an_injection_and_a_context_edit(execute, solved, encode, loaded, family):
    """After it ran without them, too: the host lets compiled code live on when patches come and go."""
    torch.compiler.reset()
    edit = solved(family, loaded)
    prompt, other = encode(loaded.clip, PROMPT), encode(loaded.clip, OTHER)
    fast, unchanged = compiled(loaded.model), sample(loaded.model, prompt)

    def inject(model: ModelPatcher) -> ModelPatcher:
        return execute("LoCo_ConditioningInjector", model=model, conditioning=other, layers=edit.recipe.layers)[0]

    def change(model: ModelPatcher) -> ModelPatcher:
        return execute("LoCo_EditApply", model=model, edit=edit, mode="context")[0]

    for changed in (inject, change):
        expected = sample(changed(loaded.model), prompt)
        tolerance = 1e-3 * relative(expected - unchanged, unchanged)  # float32 sums in another order
        assert tolerance > 0
        assert relative(sample(fast, prompt) - unchanged, unchanged) <= tolerance
        assert relative(sample(changed(fast), prompt) - expected, unchanged) <= tolerance
