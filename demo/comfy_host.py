"""The demo's jobs in a real ComfyUI server, by the API workflows that ship with the pack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .jobs import GUIDANCE, SIZE, STEPS, Change, Edit, NeuronAblation, Picture, Search
from .server import ROOT, Server

WORKFLOWS = ROOT / "workflows" / "api"
CHECKPOINT = "loco_demo.safetensors"


class ComfyHost:
    """A demo.jobs.Host; what a search finds is copied to `output`."""

    def __init__(self, server: Server, output: Path) -> None:
        self._server, self._output = server, output
        self._found: dict[str, list[int]] = {}
        self.name = f"comfyui {server.get('/system_stats')['system']['comfyui_version']}"

    def search(self, search: Search) -> dict:
        """Runs demo_find_style with the search's prompts."""
        graph = workflow("demo_find_style")
        inputs("LoCo_LayerSearch", graph).update(
            attribute=search.attribute,
            concept_prompts="\n".join(search.concepts),
            target_prompts="\n".join(search.targets),
        )
        outputs = self._server.run(graph)
        for output, what in ((1, "scores"), (2, "windows")):
            link = [the("LoCo_LayerSearch", graph), output]
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
        """Samples with the stock nodes, on the loaded model or on what LocoEdit Apply or Neuron Ablate makes of it."""
        checkpoint = "checkpoint"
        graph = {checkpoint: node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}
        model = [checkpoint, 0]
        if change:
            layers = ", ".join(map(str, self._found[change.attribute]))
            graph["layers"] = node("LoCo_LayerSelect", model=model, layers=layers, preset="as written")
            wired = {"model": model, "clip": [checkpoint, 1], "layers": ["layers", 0]}
            graph["changed"] = _edit_node(change, wired) if isinstance(change, Edit) else _ablation_node(change, wired)
            model = ["changed", 0]
        graph["negative"] = node("CLIPTextEncode", clip=[checkpoint, 1], text="")
        for i, picture in enumerate(pictures):
            graph[f"prompt{i}"] = node("CLIPTextEncode", clip=[checkpoint, 1], text=picture.prompt)
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
            graph[f"decode{i}"] = node("VAEDecode", samples=[f"sample{i}", 0], vae=[checkpoint, 2])
            graph[f"save{i}"] = node("SaveImage", images=[f"decode{i}", 0], filename_prefix="demo/picture")
        outputs = self._server.run(graph)
        files = [file for i in range(len(pictures)) for file in self._server.images(outputs[f"save{i}"]["images"])]
        images = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
        return torch.stack(images).float() / 255


def _edit_node(edit: Edit, wired: dict) -> dict:
    """The example's LocoEdit Apply with this edit."""
    asked = inputs("LoCo_EditApply", workflow("demo_remove_style"))
    changed = {"attribute": edit.attribute, "concept": edit.concept, "target": edit.target}
    return node("LoCo_EditApply", **asked | changed | wired | {"preserve": "\n".join(edit.preserve)})


def _ablation_node(ablation: NeuronAblation, wired: dict) -> dict:
    """The example's LoCo Neuron Ablate with this ablation; it detects the neurons itself."""
    asked = inputs("LoCo_NeuronAblate", workflow("demo_ablate_neurons"))
    asked = {name: value for name, value in asked.items() if name != "neurons"}
    changed = {"concept": ablation.concept, "without": "\n".join(ablation.without), "count": ablation.count}
    return node("LoCo_NeuronAblate", **asked | changed | wired)


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
