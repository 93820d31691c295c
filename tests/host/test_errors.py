"""A user's mistake, for every input of every node, and the sentence that names it. Nothing is half done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loco_core.editing.closed_form import EditOperator
from loco_core.editing.solve import solve_edit
from loco_core.models.layers import LayerSet, Part
from loco_core.neurons.detection import Neurons, NeuronScores, NeuronTokens
from made_up import edit_of, recipe

SOCKETS = (
    "scorer",
    "neurons",
    "model",
    "model_after",
    "vae",
    "clip",
    "clip_vision",
    "conditioning",
    "layers",
    "edit",
    "edit_1",
    "edit_2",
)
# The host leaves out an input to which nothing is connected.
NOT_CONNECTED = object()


@pytest.fixture(scope="module")
def execute(host):
    """execute(node id, inputs) runs a node as the host does, without a browser."""

    def run(node_id: str, inputs: dict):
        node = host.nodes.NODE_CLASS_MAPPINGS[node_id].PREPARE_CLASS_CLONE(None)
        with torch.inference_mode():
            return node.execute(**inputs).result

    return run


@pytest.fixture(scope="module")
def files(host, tmp_path_factory) -> None:
    """Files that are not what they are chosen for: a scorer of other weights, searches that are not."""
    folder = tmp_path_factory.mktemp("open_clip")
    host.folder_paths.add_model_folder_path("open_clip", str(folder))
    save_file({"weight": torch.zeros(2)}, folder / "not_a_scorer.safetensors")
    (folder / "torn.safetensors").write_bytes(b'\x08\0\0\0\0\0\0\0{"x":1')
    output = Path(host.folder_paths.get_output_directory())
    edits = output / "loco_edits"
    edits.mkdir(exist_ok=True)
    save_file({"weight": torch.zeros(2)}, edits / "foreign.safetensors")
    save_file({"weight": torch.zeros(2)}, output / "outside.safetensors")
    (output / "torn_.json").write_text("{", encoding="utf-8")
    (output / "other_.json").write_text(json.dumps({"layers": [1]}), encoding="utf-8")
    (output.parent / "outside_.json").write_text("{}", encoding="utf-8")


@pytest.fixture(scope="module")
def good(host, encoder, demo, files, vision) -> dict[str, dict]:
    """Inputs of each node with which it would work: the schema's defaults and what is wired."""
    layers = LayerSet((8, 9), 16)
    scorer = host.nodes.NODE_CLASS_MAPPINGS["LoCo_CLIPScorer"].execute(
        "loco_demo_clip.safetensors", "from the file", False
    )
    wired = {
        "model": demo.model,
        "clip": demo.clip,
        "clip_vision": vision(128),
        "vae": demo.vae,
        "scorer": scorer.result[0],
        "layers": layers,
        "conditioning": host.nodes.CLIPTextEncode().encode(demo.clip, "a red star")[0],
        "file": "loco_demo_clip.safetensors",
    }
    edit = solve_edit(encoder(demo.clip), recipe(["woodcut"], preserve=["a fish"]))
    wired |= {"edit": edit, "model_before": demo.model, "model_after": demo.model}
    wired["neurons"] = neurons_of(128, 16)
    wired |= {f"edit_{number}": edit if number < 3 else None for number in range(1, 6)}
    inputs = {}
    for node_id, node in host.nodes.NODE_CLASS_MAPPINGS.items():
        if node_id.startswith("LoCo_"):
            sockets = node.GET_SCHEMA().inputs
            defaults = {socket.id: getattr(socket, "default", None) for socket in sockets}
            inputs[node_id] = {
                name: wired[name] if default is None or name == "layers" and node_id != "LoCo_LayerSelect" else default
                for name, default in defaults.items()
            }
    for node_id in ("LoCo_LayerSearch", "LoCo_ErasureReport", "LoCo_NeuronSweep", "LoCo_NeuronEffects", "LoCo_Probe"):
        inputs[node_id] |= {"width": 128, "height": 128, "steps": 2}
    inputs["LoCo_Probe"]["levels"] = 2
    inputs["LoCo_EditSolve"] |= {"settings": "by hand", "model": NOT_CONNECTED}
    return inputs


@pytest.fixture(scope="module")
def broken(demo, host, vision) -> dict[str, object]:
    """Wired values that are wrong, by name."""
    clip = demo.clip.clone()
    bias = "clip_l.transformer.text_model.final_layer_norm.bias"
    assert clip.add_patches({bias: ("diff", (torch.full((128,), float("nan")),))})
    headless = demo.model.clone()
    headless.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    own = host.nodes.CLIPTextEncode().encode(demo.clip, "a red star")[0]
    unprojected = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[1]
    unprojected.cond_stage_model.clip_l.transformer.text_projection.weight.data.zero_()
    broken_vae = host.nodes.CheckpointLoaderSimple().load_checkpoint("loco_demo.safetensors")[2]
    next(broken_vae.first_stage_model.parameters()).data.fill_(float("nan"))
    siglip = vision(128)
    siglip.model.visual_projection = torch.nn.Identity()
    return {
        "clip without projection": unprojected,
        "vision without projection": siglip,
        "vision 64 wide": vision(64),
        "the demo's": demo.model,
        "no cross-attention": headless,
        "NaN clip": clip,
        "NaN vae": broken_vae,
        "70 layers": LayerSet((45,), 70),
        "two prompts": own + own,
        "768 wide": [[torch.zeros(1, 77, 768), {}]],
        "NaN": [[own[0][0] * float("nan"), {}]],
        "not connected": NOT_CONNECTED,
        "another clip": host.nodes.CLIPSetLastLayer().set_last_layer(demo.clip, -2)[0],
        "SDXL's": edit_of(wide(2048), LayerSet((45,), 70)),
        "of a wider clip": edit_of(wide(768), LayerSet((8,), 16)),
        "pooled": edit_of(wide(128), LayerSet((8,), 16), wide(128)),
        "70 layers' neurons": neurons_of(2048, 70),
        "768 wide neurons": neurons_of(768, 16),
        "320 neurons": neurons_of(128, 16, 320),
        "other layers": edit_of(wide(128), LayerSet((6,), 16)),
    }


def wide(width: int) -> EditOperator:
    return EditOperator(torch.zeros(width, 1).double(), torch.zeros(1, width).double())


def neurons_of(width: int, layer_count: int, outputs: int = 128) -> Neurons:
    score = NeuronScores(*torch.ones(4, outputs).double())
    chosen, prompts = LayerSet((8,), layer_count), (("c in a", "d in a"), ("c", "d"))
    return Neurons({(8, Part.VALUES): score}, chosen, width, NeuronTokens.TAIL, *prompts, "")


CASES = [
    ("LoCo_NeuronDetect", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_NeuronDetect", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_NeuronDetect", {"layers": "70 layers"}, "layers: chosen for a model with 70 layers; this model has 16"),
    ("LoCo_NeuronDetect", {"concept": ""}, "concept: empty; give at least one line"),
    (
        "LoCo_NeuronDetect",
        {"layers": "not connected", "concept": "a horse in the style of Van Gogh\na dog in the style of Van Gogh"},
        "layers: none are connected; connect layers, or give the style's name, and they are measured",
    ),
    (
        "LoCo_NeuronDetect",
        {"concept": "a cat in the style of Monet"},
        "concept: 1 different prompts; a statistic needs",
    ),
    ("LoCo_NeuronDetect", {"without": "a photo of a cat"}, "concept: 1 different prompts; a statistic needs 2 or more"),
    ("LoCo_NeuronDetect", {"concept": "monet"}, "without: 'Monet' names what is to be removed, 'monet'; take it out"),
    (
        "LoCo_NeuronDetect",
        {"concept": "a photo of a cat\na cat in blue", "without": "a photo of a cat\na photo of a dog"},
        "without: 'a photo of a cat' is a prompt with the concept too; the two sets must differ",
    ),
    ("LoCo_NeuronDetect", {"concept": '""'}, 'concept: "", the empty prompt, has nothing in it'),
    ("LoCo_NeuronDetect", {"without": 'Monet\n""'}, 'without: "", the empty prompt, has nothing in it'),
    ("LoCo_NeuronDetect", {"part": "queries"}, "part: 'queries'; give one of keys and values, keys, values"),
    ("LoCo_NeuronDetect", {"tokens": "first"}, "tokens: 'first'; give one of"),
    ("LoCo_NeuronAblate", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_NeuronAblate", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    (
        "LoCo_NeuronAblate",
        {"neurons": "70 layers' neurons"},
        "layers: chosen for a model with 70 layers; this model has",
    ),
    (
        "LoCo_NeuronAblate",
        {"neurons": "768 wide neurons"},
        "neurons: made with text embeddings 768 wide, this",
    ),
    ("LoCo_NeuronAblate", {"neurons": "320 neurons"}, "neurons: layer 8 had 320 values where they were detected, and"),
    ("LoCo_NeuronAblate", {"count": 129}, "count: 129; there are 128 of these neurons in layer 8, so give 0 to 128"),
    ("LoCo_NeuronAblate", {"rank_by": "luck"}, "rank by: 'luck'; give one of signal, z"),
    ("LoCo_NeuronSweep", {"rank_by": "luck"}, "rank by: 'luck'; give one of signal, z"),
    ("LoCo_NeuronDetect", {"without": "Monet\nPicasso"}, "without: every prompt holds another concept; give plain"),
    ("LoCo_NeuronAblate", {"choose_by": "luck"}, "choose by: 'luck'; give one of count, count per layer"),
    ("LoCo_NeuronAblate", {"mode": "drop"}, "mode: 'drop'; give one of mean, zero, scale"),
    ("LoCo_NeuronAblate", {"scale": 3.0}, "scale: 3.0; give 0 to 2"),
    ("LoCo_NeuronAblate", {"token_positions": "80"}, "token positions: '80'; give 'all', or positions from 0 to 76"),
    ("LoCo_NeuronAblate", {"token_positions": "9-3"}, "token positions: '9-3'; give 'all', or positions from 0 to 76"),
    ("LoCo_NeuronAblate", {"token_positions": " "}, "token positions: empty; give 'all', or positions like '1-76'"),
    ("LoCo_NeuronAblate", {"branch": "left"}, "branch: 'left'; give one of positive, negative, both"),
    ("LoCo_NeuronAblate", {"start_percent": 0.6, "end_percent": 0.4}, "the start must not come after the end"),
    ("LoCo_NeuronAblate", {"apply": "disk"}, "apply: 'disk'; give one of run time, weights"),
    ("LoCo_NeuronAblate", {"apply": "weights"}, "apply: weights have no bias to hold a mean; choose mode 'zero' or"),
    (
        "LoCo_NeuronAblate",
        {"apply": "weights", "mode": "zero", "branch": "positive"},
        "apply: weights act on all tokens, in both branches, with start_percent 0 and end_percent 1;",
    ),
    (
        "LoCo_NeuronSweep",
        {"neurons": "768 wide neurons"},
        "neurons: made with text embeddings 768 wide, this",
    ),
    ("LoCo_NeuronSweep", {"counts": "999"}, "counts: '999'; there are 128 neurons, so give 0 to 128"),
    ("LoCo_NeuronSweep", {"counts": "many"}, "counts: 'many' is not understood"),
    ("LoCo_NeuronSweep", {"concept_prompts": ""}, "concept prompts: empty; give at least one line"),
    ("LoCo_NeuronSweep", {"target_prompts": "a\nb\nc"}, "concept prompts: 1 lines, target prompts: 3"),
    ("LoCo_NeuronSweep", {"keep_prompts": " "}, "keep prompts: empty; give at least one"),
    ("LoCo_NeuronSweep", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_NeuronSweep", {"seed_count": 0}, "seeds: 0; give at least 1"),
    ("LoCo_NeuronSweep", {"mode": "drop"}, "mode: 'drop'; give one of mean, zero, scale"),
    ("LoCo_NeuronSweep", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    (
        "LoCo_NeuronEffects",
        {"neurons": "768 wide neurons"},
        "neurons: made with text embeddings 768 wide, this",
    ),
    ("LoCo_NeuronEffects", {"runs": "20"}, "runs: '20'; give one of 16, 32, 64"),
    ("LoCo_NeuronEffects", {"rounds": 0}, "rounds: 0; give at least 1"),
    ("LoCo_NeuronEffects", {"concept_prompts": ""}, "concept prompts: empty; give at least one line"),
    ("LoCo_NeuronEffects", {"target_prompts": "a\nb\nc"}, "concept prompts: 1 lines, target prompts: 3"),
    ("LoCo_NeuronEffects", {"keep_prompts": " "}, "keep prompts: empty; give at least one"),
    ("LoCo_NeuronEffects", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_NeuronEffects", {"seed_count": 0}, "seeds: 0; give at least 1"),
    ("LoCo_NeuronEffects", {"mode": "drop"}, "mode: 'drop'; give one of mean, zero, scale"),
    ("LoCo_NeuronEffects", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_NeuronExportLoRA", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    (
        "LoCo_NeuronExportLoRA",
        {"neurons": "768 wide neurons"},
        "neurons: made with text embeddings 768 wide, this",
    ),
    ("LoCo_NeuronExportLoRA", {"rank_by": "effect"}, "rank by: the effect of these neurons was not measured; use LoCo"),
    (
        "LoCo_NeuronExportLoRA",
        {"choose_by": "luck"},
        "choose by: 'luck'; give one of count, count per layer, threshold",
    ),
    (
        "LoCo_NeuronExportLoRA",
        {"count": 129},
        "count: 129; there are 128 of these neurons in layer 8, so give 0 to 128",
    ),
    (
        "LoCo_NeuronExportLoRA",
        {"choose_by": "threshold", "threshold": 99.0},
        "count: nothing is changed, so there is no LoRA to save",
    ),
    ("LoCo_NeuronExportLoRA", {"mode": "mean"}, "mode: a LoRA has no bias to hold a mean; choose 'zero' or 'scale'"),
    ("LoCo_NeuronExportLoRA", {"mode": "scale", "scale": 3.0}, "scale: 3.0; give 0 to 2"),
    ("LoCo_NeuronExportLoRA", {"naming": "own"}, "naming: 'own'; give one of kohya, diffusers"),
    ("LoCo_NeuronExportLoRA", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
    ("LoCo_NeuronSave", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
    ("LoCo_NeuronLoad", {"file": "absent.safetensors"}, "file: 'absent.safetensors' is not in models/loco_neurons or"),
    ("LoCo_NeuronLoad", {"file": "../outside.safetensors"}, "'../outside.safetensors' is not in models/loco_neurons"),
    ("LoCo_CLIPScorer", {"file": "absent.safetensors"}, "file: 'absent.safetensors' is not in models/open_clip. Get a"),
    ("LoCo_CLIPScorer", {"file": "not_a_scorer.safetensors"}, "not_a_scorer"),
    ("LoCo_CLIPScorer", {"file": "torn.safetensors"}, "torn"),
    ("LoCo_CLIPScorer", {"file": "../../x.safetensors"}, "is not in models/open_clip"),
    ("LoCo_CLIPScorer", {"download": True}, "architecture: 'from the file'; to download, choose one of ViT-B-32"),
    ("LoCo_CLIPVisionScorer", {"clip": "clip without projection"}, "clip: its text tower clip_l has no projection to"),
    ("LoCo_CLIPVisionScorer", {"clip_vision": "vision without projection"}, "clip_vision: it has no projection to a"),
    (
        "LoCo_CLIPVisionScorer",
        {"clip_vision": "vision 64 wide"},
        "clip: the embeddings of its text towers are 128 (clip_l) wide, those of clip_vision 64; they must be the two",
    ),
    ("LoCo_LayerSearch", {"concept_prompts": " \n "}, "concept prompts: empty; give at least one line"),
    ("LoCo_LayerSearch", {"target_prompts": ""}, "target prompts: empty; give at least one line"),
    (
        "LoCo_LayerSearch",
        {"concept_prompts": "a\nb\nc", "target_prompts": "a\nb"},
        "concept prompts: 3 lines, target prompts: 2 lines; give one target per concept or a single one",
    ),
    ("LoCo_LayerSearch", {"attribute": "colour"}, "attribute: 'colour'; give one of style, object, fact"),
    ("LoCo_LayerSearch", {"window_size": 17}, "window size: 17; this model has 16 layers, so give 1 to 16"),
    ("LoCo_LayerSearch", {"effort": "heroic"}, "effort: 'heroic'; give one of probe, exhaustive"),
    (
        "LoCo_LayerSearch",
        {"scorer": "not connected", "effort": "exhaustive"},
        "scorer: missing; effort exhaustive compares windows by their images' scores: give a scorer, or effort probe",
    ),
    ("LoCo_LayerSearch", {"levels": 0}, "levels: 0; give 1 or more"),
    ("LoCo_LayerSearch", {"part": "queries"}, "part: 'queries'; give one of keys and values, keys, values"),
    ("LoCo_LayerSearch", {"seed_count": 0}, "seeds: 0; give at least 1"),
    ("LoCo_LayerSearch", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_LayerSearch", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_LayerSearch", {"vae": "NaN vae"}, "vae: NaN or Inf in an image; start ComfyUI with --fp32-vae, or load"),
    ("LoCo_LayerSearch", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
    ("LoCo_Probe", {"concept_prompts": " \n "}, "concept prompts: empty; give at least one line"),
    ("LoCo_Probe", {"target_prompts": ""}, "target prompts: empty; give at least one line"),
    ("LoCo_Probe", {"attribute": "colour"}, "attribute: 'colour'; give one of style, object, fact"),
    ("LoCo_Probe", {"levels": 0}, "levels: 0; give 1 or more"),
    ("LoCo_Probe", {"part": "queries"}, "part: 'queries'; give one of keys and values, keys, values"),
    ("LoCo_Probe", {"seed_count": 0}, "seeds: 0; give at least 1"),
    ("LoCo_Probe", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_Probe", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_LayerSelect", {"layers": "99"}, "layers: '99' does not exist; this model has layers 0 to 15"),
    ("LoCo_LayerSelect", {"layers": "9-8"}, "layers: '9-8' runs backwards; give the lower number first, '8-9'"),
    ("LoCo_LayerSelect", {"layers": "style"}, "layers: 'style' is not understood; give indices like '8-9'"),
    ("LoCo_LayerSelect", {"preset": "style"}, "preset: the paper has none for a model with 16 cross-attention layers"),
    ("LoCo_LayerSelect", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_LayersLoad", {"file": "absent_.json"}, "file: 'absent_.json' is not in the output folder; run LoCo Layer"),
    ("LoCo_LayersLoad", {"file": "../outside_.json"}, "file: '../outside_.json' is not in the output folder"),
    ("LoCo_LayersLoad", {"file": "torn_.json"}, "file: 'torn_.json' is not a search saved by LoCo Layer Search"),
    ("LoCo_LayersLoad", {"file": "other_.json"}, "file: 'other_.json' is not a search saved by LoCo Layer Search"),
    ("LoCo_ConditioningInjector", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_ConditioningInjector", {"conditioning": "two prompts"}, "conditioning: 2 prompts; connect one CLIP Text"),
    ("LoCo_ConditioningInjector", {"conditioning": "768 wide"}, "conditioning: its embeddings are 768 wide"),
    ("LoCo_ConditioningInjector", {"pooled": True}, "pooled: no layer of this model gets a pooled embedding by itself"),
    ("LoCo_ConditioningInjector", {"conditioning": "NaN"}, "conditioning: NaN or Inf in its embeddings"),
    ("LoCo_ConditioningInjector", {"layers": "70 layers"}, "layers: chosen for a model with 70 layers; this model has"),
    (
        "LoCo_ConditioningInjector",
        {"start_percent": 0.6, "end_percent": 0.4},
        "start percent: 0.6, end percent: 0.4; the start must not come after the end",
    ),
    ("LoCo_Remove", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_Remove", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_Remove", {"concept": ""}, "concept: empty; give at least one line"),
    ("LoCo_Remove", {"concept": "x\ny\nz", "target": "u\nv"}, "concept: 3 lines, target: 2 lines; give one target"),
    ("LoCo_Remove", {"attribute": "colour"}, "attribute: 'colour'; give one of style, object, fact"),
    ("LoCo_Remove", {"concept": "woodcut", "target": "woodcut"}, "target: 'woodcut' is the concept too; give what"),
    ("LoCo_Remove", {"preserve": "Van Gogh"}, "preserve: 'Van Gogh' names what is to be removed, 'Van Gogh'; take"),
    ("LoCo_EditApply", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_EditApply", {"mode": "both"}, "mode: 'both'; give one of weights, context"),
    ("LoCo_EditApply", {"start_percent": 0.5}, "an edit of weights acts from 0 to 1, choose mode 'context'"),
    ("LoCo_EditApply", {"start_percent": 0.6, "end_percent": 0.4}, "the start must not come after the end"),
    ("LoCo_EditApply", {"edit": "SDXL's"}, "layers: chosen for a model with 70 layers; this model has 16"),
    ("LoCo_EditApply", {"edit": "of a wider clip"}, "edit: made with text embeddings 768 wide, this model gets 128"),
    (
        "LoCo_EditSolve",
        {"model": "the demo's", "layers": "70 layers"},
        "layers: chosen for a model with 70 layers; this model has 16",
    ),
    ("LoCo_EditSolve", {"concept": "x\ny\nz", "target": "u\nv"}, "concept: 3 lines, target: 2 lines; give one target"),
    ("LoCo_EditSolve", {"attribute": "colour"}, "attribute: 'colour'; give one of style, object, fact"),
    ("LoCo_EditSolve", {"settings": "best"}, "settings: 'best'; give one of automatic, by hand"),
    ("LoCo_EditSolve", {"preserved_tolerance": 0.0}, "preserved tolerance: 0.0; give a number between 0 and 1"),
    ("LoCo_EditSolve", {"tokens": "all"}, "tokens: 'all'; give one of last subject token"),
    ("LoCo_EditSolve", {"relative_ridge": 0.0}, "relative ridge: 0.0; give a number above 0"),
    ("LoCo_EditSolve", {"ridge": "none"}, "ridge: 'none'; give one of relative, paper"),
    ("LoCo_EditSolve", {"preservation": "some"}, "preservation: 'some'; give one of exact, weighted, none"),
    ("LoCo_EditSolve", {"preserve": "Van Gogh"}, "preserve: 'Van Gogh' names what is to be removed, 'Van Gogh'; take"),
    (
        "LoCo_EditSolve",
        {"model": "the demo's", "pooled": True},
        "pooled: this model gets no pooled embedding; switch it off",
    ),
    ("LoCo_EditSolve", {"layers": "not connected"}, "layers: none are connected; connect layers, or a model in which"),
    ("LoCo_EditSolve", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_EditSolve", {"concept": " "}, "concept: empty; give at least one line"),
    ("LoCo_EditSolve", {"concept": "x\ny", "target": "u\nv\nw"}, "concept: 2 lines, target: 3 lines"),
    ("LoCo_EditSolve", {"concept": '""\nx'}, 'concept: "", the empty prompt, has nothing in it'),
    ("LoCo_EditSolve", {"preserve": 'Monet\n""'}, 'preserve: "", the empty prompt, has nothing in it'),
    ("LoCo_EditSolve", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    (
        "LoCo_EditCombine",
        {"clip": "another clip"},
        "clip: it is DemoClip, stop_at_clip_layer -2; the edit of",
    ),
    ("LoCo_EditCombine", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_EditCombine", {"edit_2": "other layers"}, "edits: their layers differ (8-9 and 6)"),
    ("LoCo_EditCheck", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_EditCheck", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_EditSave", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
    ("LoCo_EditSave", {"filename_prefix": " "}, "filename_prefix: ' ' holds no name; give one, like 'loco/mine'"),
    ("LoCo_EditSave", {"filename_prefix": "torn_.json/x"}, "filename_prefix: 'torn_.json/x' cannot be written to"),
    ("LoCo_EditLoad", {"file": "absent.safetensors"}, "file: 'absent.safetensors' is not in models/loco_edits or"),
    ("LoCo_EditLoad", {"file": "../outside.safetensors"}, "file: '../outside.safetensors' is not in models/loco_edits"),
    ("LoCo_EditLoad", {"file": "foreign.safetensors"}, "file: 'foreign.safetensors' is not an edit saved by LoCo Edit"),
    ("LoCo_EditExportLoRA", {"edit": "SDXL's"}, "layers: chosen for a model with 70 layers; this model has 16"),
    ("LoCo_EditExportLoRA", {"edit": "pooled"}, "pooled: this model gets no pooled embedding"),
    ("LoCo_EditExportLoRA", {"strength": 0.0}, "edit: it changes nothing, so there is no LoRA to save"),
    ("LoCo_EditExportLoRA", {"rank": -1}, "rank: -1; give 1 or more, or 0 for as much as the concepts need"),
    ("LoCo_EditExportLoRA", {"naming": "mine"}, "naming: 'mine'; give one of kohya, diffusers"),
    ("LoCo_EditExportLoRA", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
    ("LoCo_EditExportLoRA", {"model": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_ErasureReport", {"concept_prompts": ""}, "concept prompts: empty; give at least one line"),
    ("LoCo_ErasureReport", {"target_prompts": "a\nb\nc"}, "concept prompts: 1 lines, target prompts: 3 lines"),
    ("LoCo_ErasureReport", {"keep_prompts": '""'}, 'keep prompts: "", the empty prompt, has nothing in it'),
    ("LoCo_ErasureReport", {"clip": "NaN clip"}, "clip: NaN or Inf in the text embedding of"),
    ("LoCo_ErasureReport", {"seed_count": 0}, "seeds: 0; give at least 1"),
    ("LoCo_ErasureReport", {"model_after": "no cross-attention"}, "model: how a Linear reads the prompt is not known"),
    ("LoCo_ErasureReport", {"filename_prefix": "../x"}, "filename_prefix: '../x' leads out of the output folder"),
]


@pytest.mark.parametrize(("node_id", "change", "message"), CASES)
def test_a_mistake_is_named(execute, good, broken, node_id, change, message):
    change = {
        name: broken.get(value, value) if isinstance(value, str) and name in SOCKETS else value
        for name, value in change.items()
    }
    inputs = good[node_id] | change
    with pytest.raises(ValueError) as raised:
        execute(node_id, {name: value for name, value in inputs.items() if value is not NOT_CONNECTED})
    assert message in str(raised.value)


def test_every_input_that_can_be_wrong_has_its_mistake(good):
    """Left out: choices and numbers that the host itself keeps within their bounds, and names of any kind."""
    bounded = {
        "vae",
        "scorer",
        "negative_prompt",
        "seed",
        "steps",
        "cfg",
        "sampler_name",
        "scheduler",
        "width",
        "height",
        "size",
    }
    bounded |= {
        "batch_rows",
        "architecture",
        "part",
        "branch",
        "strength",
        "model_before",
        "edit",  # to save; the other nodes' are in CASES
    }
    bounded |= {"threshold", "neurons"}  # to save
    bounded |= {f"edit_{number}" for number in (1, 3, 4, 5)}
    tried = {(node_id, name) for node_id, change, _ in CASES for name in change}
    missing = {(node_id, name) for node_id, inputs in good.items() for name in inputs} - tried
    assert {name for _, name in missing} <= bounded
