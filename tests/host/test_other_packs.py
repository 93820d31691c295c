"""What people report of nodes like these beside other packs and the host's newer features: guiders with other names,
context windows, conditionings with settings, samplers of other packs, linked file names, folders and names on disk.
"""

from __future__ import annotations

import os
from pathlib import Path

import comfy.context_windows
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.k_diffusion import sampling as k_diffusion

import nodes
from loco_core.models.layers import LayerSet

OWN, OTHER, NEGATIVE = "a red star", "a blue fish in the style of woodcut", "a green tree"
ALL = tuple(range(16))
# The largest difference from the reference, of its largest number: float32 sums in another order.
ROUNDING = 1e-4
FRAMES = ("red star", "blue fish", "green tree", "red boat", "blue star", "green fish", "red tree", "blue boat")


@pytest.fixture(scope="module")
def encode(demo):
    return lambda prompt: nodes.CLIPTextEncode().encode(demo.clip, prompt)[0]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def noise(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sample(model, positive: list, negative: list, batch: int = 1) -> torch.Tensor:
    arguments = (3, 2.0, "euler", "normal", positive, negative, torch.zeros(batch, 4, 16, 16))
    return comfy.sample.sample(model, noise(batch), *arguments, disable_pbar=True, seed=7)


# --- guiders ----------------------------------------------------------------------------------------------------------


class NamedGuider(comfy.samplers.CFGGuider):
    """CFG whose conditionings have other names."""

    names = "positive", "negative"

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        positive, negative = (self.conds[name] for name in self.names)
        options = {"model_options": model_options or {}, "seed": seed}
        return comfy.samplers.sampling_function(self.inner_model, x, timestep, negative, positive, self.cfg, **options)


@torch.no_grad()
def guided(model, names: tuple[str, str], positive: list, negative: list) -> torch.Tensor:
    guider = NamedGuider(model)
    guider.names = names
    guider.inner_set_conds(dict(zip(names, (positive, negative), strict=True)))
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise(), torch.zeros(1, 4, 16, 16), sampler, sigmas, disable_pbar=True, seed=7)


@pytest.mark.parametrize("names", [("xt_positive", "xt_negative"), ("inner_positive", "negative")])
@pytest.mark.parametrize(("branch", "prompts"), [("positive", (OTHER, NEGATIVE)), ("negative", (OWN, OTHER))])
def test_a_guiders_positive_prompt_is_known_by_other_names_too(demo, encode, inject_in, names, branch, prompts):
    injected = inject_in(demo.model, encode(OTHER), ALL, branch=branch)
    expected = guided(demo.model, names, *map(encode, prompts))
    assert difference(guided(injected, names, encode(OWN), encode(NEGATIVE)), expected) <= ROUNDING


def test_a_guider_without_a_positive_prompt_is_refused_for_one_branch_and_taken_for_both(demo, encode, inject_in):
    names, other = ("first", "second"), encode(OTHER)
    with pytest.raises(ValueError, match="branch: this sampler does not tell its positive prompt .*; choose 'both'"):
        guided(inject_in(demo.model, other, ALL), names, encode(OWN), encode(NEGATIVE))
    both = guided(inject_in(demo.model, other, ALL, branch="both"), names, encode(OWN), encode(NEGATIVE))
    assert difference(both, guided(demo.model, names, other, other)) <= ROUNDING


# --- batches in windows -----------------------------------------------------------------------------------------------


def in_windows(model, length: int):
    clone = model.clone()
    clone.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=length,
        context_overlap=0,
        context_stride=1,
        closed_loop=False,
        dim=0,
    )
    comfy.context_windows.create_prepare_sampling_wrapper(clone)
    return clone


@pytest.mark.parametrize("length", [3, *(pytest.param(length, marks=pytest.mark.slow) for length in (4, 8))])
def test_each_frame_gets_the_prompt_of_its_own_in_every_window(demo, encode, inject_in, length):
    def frames(text: str) -> list:
        return [[torch.cat([encode(text.format(frame))[0][0] for frame in FRAMES]), {}]]

    other, negative = frames("a {} in the style of woodcut"), encode(NEGATIVE)
    expected = sample(in_windows(demo.model, length), other, negative, batch=len(FRAMES))
    injected = in_windows(inject_in(demo.model, other, ALL), length)
    assert difference(sample(injected, frames("a {}"), negative, batch=len(FRAMES)), expected) <= ROUNDING


# --- conditionings with settings --------------------------------------------------------------------------------------

SETTINGS = {
    "time range": {"start_percent": 0.5, "end_percent": 1.0},
    "mask": {"mask": torch.ones(1, 16, 16)},
    "area": {"area": (8, 8, 0, 0)},
    "strength": {"strength": 0.3},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_conditioning_that_would_have_no_effect_is_refused(demo, encode, inject_in, setting):
    ((tokens, rest),) = encode(OTHER)
    with pytest.raises(ValueError, match="^conditioning: its settings .* have no effect on single layers; connect"):
        inject_in(demo.model, [[tokens, {**rest, **SETTINGS[setting]}]], ALL)


def test_settings_that_ask_for_nothing_are_taken(demo, encode, inject_in):
    ((tokens, rest),) = encode(OTHER)
    whole = {"start_percent": 0.0, "end_percent": 1.0, "strength": 1.0}
    inject_in(demo.model, [[tokens, {**rest, **whole}]], ALL)


# --- samplers of other packs ------------------------------------------------------------------------------------------


def test_a_sampler_of_another_pack_is_not_offered(pack, monkeypatch):
    """It may draw noise for the whole batch: an image would depend on its neighbours."""

    def sample_res_2s(model, x, sigmas, **options):
        return x

    monkeypatch.setattr(k_diffusion, "sample_res_2s", sample_res_2s, raising=False)
    monkeypatch.setattr(comfy.samplers.KSampler, "SAMPLERS", [*comfy.samplers.KSampler.SAMPLERS, "res_2s"])
    offered = pack("nodes.host.samplers").samplers()
    assert "res_2s" not in offered
    assert {"euler", "euler_ancestral", "dpmpp_2m", "ddim", "uni_pc"} <= set(offered)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["LoCo_EditLoad", "LoCo_NeuronLoad", "LoCo_LayersLoad"])
def test_a_linked_file_name_has_one_fingerprint(host, node):
    """The host does not know a linked name before the run, and an error would run everything behind it again."""
    kind = host.nodes.NODE_CLASS_MAPPINGS[node]
    assert kind.fingerprint_inputs(file=None) == kind.fingerprint_inputs(file=None)


LONG = "loco/" + "a red star in the style of woodcut, " * 7


@pytest.fixture(scope="module")
def saving(execute, demo):
    """By node, what a node that saves is given beside its filename_prefix."""
    layers = LayerSet((8, 9), 16)
    edit = execute("LoCo_EditSolve", clip=demo.clip, layers=layers, concept="woodcut", preserve="")[0]
    scorer = execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")[0]
    images = {"clip": demo.clip, "vae": demo.vae, "scorer": scorer, "steps": 1, "seed_count": 1, "width": 64}
    prompts = {"concept_prompts": "a red star in the style of woodcut", "target_prompts": "a red star", "height": 64}
    both = {"model_before": demo.model, "model_after": demo.model, "keep_prompts": "a blue fish"}
    return {
        "LoCo_EditSave": {"edit": edit},
        "LoCo_EditExportLoRA": {"model": demo.model, "edit": edit},
        "LoCo_LayerSearch": {"model": demo.model, **images, **prompts},
        "LoCo_ErasureReport": {**both, **images, **prompts},
    }


@pytest.mark.parametrize("node", ["LoCo_EditSave", "LoCo_EditExportLoRA", "LoCo_LayerSearch", "LoCo_ErasureReport"])
def test_a_name_that_the_disk_does_not_take_is_refused_before_any_image_is_made(
    pack, execute, saving, monkeypatch, node
):
    monkeypatch.setattr(pack("nodes.host.engine").ComfyEngine, "generate", lambda *_, **__: pytest.fail("an image"))
    with pytest.raises(ValueError, match="^filename_prefix: .* cannot be written to .*; give another name"):
        execute(node, filename_prefix=LONG, **saving[node])


@pytest.fixture
def output(host, tmp_path):
    """An output folder of its own."""
    before = host.folder_paths.get_output_directory()
    host.folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    host.folder_paths.set_output_directory(before)


def test_searches_saved_since_are_listed_first(pack, output):
    saved_searches = pack("nodes.host.folders").saved_searches
    (output / "a_search_00001_.json").write_text("{}")
    os.utime(output / "a_search_00001_.json", (1, 1))
    assert saved_searches() == ["a_search_00001_.json"]
    (output / "loco").mkdir()
    (output / "loco" / "search_00001_.json").write_text("{}")
    assert saved_searches() == ["loco/search_00001_.json", "a_search_00001_.json"]


def test_images_in_the_output_folder_are_not_looked_at_one_by_one(pack, output, monkeypatch):
    """There may be 200,000 of them, and the folder is listed whenever the host asks for the node's inputs."""
    for number in range(3):
        (output / f"ComfyUI_{number:05}_.png").write_bytes(b"")
    (output / "search_00001_.json").write_text("{}")
    looked_at = []
    for look in ("relpath", "getmtime"):
        kept = getattr(os.path, look)
        monkeypatch.setattr(os.path, look, lambda path, *more, kept=kept: looked_at.append(path) or kept(path, *more))
    assert pack("nodes.host.folders").saved_searches() == ["search_00001_.json"]
    assert {Path(path).suffix for path in looked_at} == {".json"}


def test_an_output_folder_that_is_a_link_to_another_disk_is_listed(pack, host, tmp_path):
    """The folder itself; into a link inside it the newer hosts do not save."""
    before = host.folder_paths.get_output_directory()
    (tmp_path / "disk" / "loco").mkdir(parents=True)
    (tmp_path / "disk" / "loco" / "search_00001_.json").write_text("{}")
    (tmp_path / "output").symlink_to(tmp_path / "disk", target_is_directory=True)
    host.folder_paths.set_output_directory(str(tmp_path / "output"))
    try:
        folders = pack("nodes.host.folders")
        assert folders.saved_searches() == ["loco/search_00001_.json"]
        assert folders.search_path("loco/search_00001_.json").is_file()
        assert folders.output_path("loco/mine", ".json").name == "mine_00001_.json"
    finally:
        host.folder_paths.set_output_directory(before)


# --- Python packages that are missing, or do not fit each other (RyanOnTheInside#30) ---------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'open_clip'", name="open_clip"),
        ImportError("numpy.core.multiarray failed to import"),
        RuntimeError("operator torchvision::nms does not exist"),
        OSError("libcudart.so.12: cannot open shared object file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_broken_package_takes_the_nodes_that_need_it_and_no_others(pack, monkeypatch, caplog, error):
    package = pack("nodes")
    imported = package.import_module

    def broken(name: str, *rest: str):
        if name.endswith("clip_scorer"):
            raise error
        return imported(name, *rest)

    whole = {node.__name__ for node in package._nodes()}
    monkeypatch.setattr(package, "import_module", broken)
    left = {node.__name__ for node in package._nodes()}
    assert {"LayerSearchNode", "EditApplyNode"} < left < whole
    assert f"comparison.clip_scorer, for a Python package that they need cannot be imported ({error})" in caplog.text
