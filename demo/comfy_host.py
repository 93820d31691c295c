"""The demo's jobs in a real ComfyUI server, by the API workflows that ship with the pack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .jobs import GUIDANCE, SIZE, STEPS, Change, Edit, LoRA, NeuronAblation, Picture, Search
from .server import ROOT, Server

WORKFLOWS = ROOT / "workflows" / "api"
CHECKPOINT = "loco_demo.safetensors"
# Links to what the checkpoint's loader gives.
MODEL, CLIP, VAE = (["checkpoint", output] for output in range(3))


class ComfyHost:
    """A demo.jobs.Host; what a search finds is copied to `output`.

    `on_share` is told which share of the running job is done.
    """

    def __init__(self, server: Server, output: Path, on_share: Callable[[float], None] = lambda share: None) -> None:
        self._server, self._output, self._on_share = server, output, on_share
        self._found: dict[str, list[int]] = {}
        self.name = f"comfyui {server.get('/system_stats')['system']['comfyui_version']}"

    def search(self, search: Search) -> dict:
        """Runs Demo 4 - Find the layers of a style with the search's prompts."""
        graph = workflow("Demo 4 - Find the layers of a style")
        inputs("LoCo_LayerSearch", graph).update(
            attribute=search.attribute,
            concept_prompts="\n".join(search.concepts),
            target_prompts="\n".join(search.targets),
        )
        outputs = self._run(graph, {the("LoCo_LayerSearch", graph): 1})
        slots = self._server.get("/object_info/LoCo_LayerSearch")["LoCo_LayerSearch"]["output_name"]
        for output, what in (("plot", "map"), ("contact_sheet", "images")):
            link = [the("LoCo_LayerSearch", graph), slots.index(output)]
            (saver,) = (key for key, node in graph.items() if node["inputs"].get("images") == link)
            picture = self._server.images(outputs[saver]["images"])[0]
            shutil.copy(picture, self._output / f"search_{search.attribute}_{what}.png")
        saved = (self._server.output / "loco").glob("search_*.json")
        newest = max(saved, key=lambda path: path.stat().st_mtime)
        for file in (newest, newest.with_suffix(".csv")):
            shutil.copy(file, self._output / f"search_{search.attribute}{file.suffix}")
        found = json.loads(newest.read_text(encoding="utf-8"))
        self._found[search.attribute] = found["layers"]
        verdict = found["verdict"]
        return {"window": found["layers"], "verdict": verdict["kind"], "text": verdict["text"]}

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        """Samples with the stock nodes, on the loaded model or on what LoCo Edit Apply or Neuron Ablate makes of it."""
        graph = _checkpoint()
        model = self._change(graph, change) if change else MODEL
        graph["negative"] = node("CLIPTextEncode", clip=CLIP, text="")
        for i, picture in enumerate(pictures):
            graph[f"prompt{i}"] = node("CLIPTextEncode", clip=CLIP, text=picture.prompt)
            graph[f"latent{i}"] = node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=picture.count)
            graph[f"sample{i}"] = node(
                "KSampler",
                model=model,
                positive=[f"prompt{i}", 0],
                negative=["negative", 0],
                latent_image=[f"latent{i}", 0],
                seed=picture.seed,
                steps=STEPS,
                cfg=GUIDANCE,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            )
            graph[f"decode{i}"] = node("VAEDecode", samples=[f"sample{i}", 0], vae=VAE)
            graph[f"save{i}"] = node("SaveImage", images=[f"decode{i}", 0], filename_prefix="demo/picture")
        outputs = self._run(graph, {f"sample{i}": picture.count for i, picture in enumerate(pictures)})
        files = [file for i in range(len(pictures)) for file in self._server.images(outputs[f"save{i}"]["images"])]
        images = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
        return torch.stack(images).float() / 255

    def save_lora(self, edit: Edit) -> Path:
        """Runs Demo 6 - Share an edit's Solve and Export LoRA."""
        graph, example = _checkpoint(), workflow("Demo 6 - Share an edit")
        wired = {"model": MODEL, "clip": CLIP, "layers": self._layers(graph, edit)}
        graph["edit"] = _solve_node(edit, example, wired)
        exported = inputs("LoCo_EditExportLoRA", example) | {"model": MODEL, "edit": ["edit", 0]}
        graph["lora"] = node("LoCo_EditExportLoRA", **exported)
        self._run(graph, {"lora": 1})
        saved = (self._server.output / exported["filename_prefix"]).parent.glob("*.safetensors")
        newest = max(saved, key=lambda path: path.stat().st_mtime)
        return Path(shutil.copyfile(newest, self._output / f"remove_{edit.concept}_lora.safetensors"))

    def _run(self, graph: dict, weights: Mapping[str, int]) -> dict:
        """Runs it; the work is that of the nodes in `weights`, by their ids."""

        def on_nodes(nodes: dict[str, dict]) -> None:
            begun = ((weight, nodes[key]) for key, weight in weights.items() if key in nodes)
            done = sum(weight * node["value"] / node["max"] for weight, node in begun)
            self._on_share(done / sum(weights.values()))

        return self._server.follow(graph, on_nodes)

    def _layers(self, graph: dict, change: Edit | NeuronAblation) -> list:
        """Adds the layers that the attribute's search found; returns the link to them."""
        layers = ", ".join(map(str, self._found[change.attribute]))
        graph["layers"] = node("LoCo_LayerSelect", model=MODEL, layers=layers, preset="as written")
        return ["layers", 0]

    def _change(self, graph: dict, change: Change) -> list:
        """Adds the node that changes the model; returns the link to the changed model."""
        if isinstance(change, LoRA):
            folder = self._server.folder / "models" / "loras"
            folder.mkdir(exist_ok=True)
            name = Path(shutil.copy(change.file, folder)).name
            graph["changed"] = node("LoraLoaderModelOnly", model=MODEL, lora_name=name, strength_model=1.0)
        else:
            wired = {"model": MODEL, "clip": CLIP, "layers": self._layers(graph, change)}
            change_node = _edit_node if isinstance(change, Edit) else _ablation_node
            graph["changed"] = change_node(graph, change, wired)
        return ["changed", 0]


def _checkpoint() -> dict:
    """A graph that loads the demo model, with the outputs MODEL, CLIP and VAE."""
    return {MODEL[0]: node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}


def _asked(edit: Edit) -> dict[str, str]:
    """The edit, as inputs of Solve."""
    kept = "\n".join(edit.preserve)
    return {"attribute": edit.attribute, "concept": edit.concept, "target": edit.target, "preserve": kept}


def _solve_node(edit: Edit, example: dict, wired: dict) -> dict:
    """The example's LoCo Edit Solve with this edit."""
    return node("LoCo_EditSolve", **inputs("LoCo_EditSolve", example) | _asked(edit) | wired)


def _edit_node(graph: dict, edit: Edit, wired: dict) -> dict:
    """The example's LoCo Edit Apply of this edit, for which its LoCo Edit Solve is added to the graph."""
    example = workflow("Demo 2 - Find and remove a style")
    graph["edit"] = _solve_node(edit, example, wired)
    return node("LoCo_EditApply", **inputs("LoCo_EditApply", example) | {"model": MODEL, "edit": ["edit", 0]})


def _ablation_node(graph: dict, ablation: NeuronAblation, wired: dict) -> dict:
    """The example's LoCo Neuron Ablate of this ablation, for which its LoCo Neuron Detect is added to the graph."""
    example = workflow("Demo 7 - Remove a style by its neurons")
    sought = {"concept": ablation.concept, "without": "\n".join(ablation.without)}
    graph["neurons"] = node("LoCo_NeuronDetect", **inputs("LoCo_NeuronDetect", example) | sought | wired)
    changed = {"model": MODEL, "clip": CLIP, "neurons": ["neurons", 0], "count": ablation.count}
    return node("LoCo_NeuronAblate", **inputs("LoCo_NeuronAblate", example) | changed)


def workflow(name: str) -> dict:
    """An API workflow of the pack."""
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def the(class_type: str, graph: dict) -> str:
    """The id of the only node of that class."""
    (key,) = (key for key, node in graph.items() if node["class_type"] == class_type)
    return key


def inputs(class_type: str, graph: dict) -> dict:
    """The inputs of the only node of that class."""
    return graph[the(class_type, graph)]["inputs"]
