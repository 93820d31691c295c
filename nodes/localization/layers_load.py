"""LoCo Layers Load: the layers that an earlier search found and saved."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...loco_core.localization.report import read_layers
from ..host.progress import node_output
from ..inputs.shared import layers_output

NO_FILE = "no search saved yet"


def saved_searches() -> list[str]:
    """The JSON files of searches in the output folder, newest first, with forward slashes: others have other names."""
    output = Path(folder_paths.get_output_directory())
    files = sorted(filter(Path.is_file, output.rglob("*_.json")), key=os.path.getmtime, reverse=True)
    return [path.relative_to(output).as_posix() for path in files]


def _path(file: str) -> Path:
    """The file in the output folder; a name that leads out of it is not looked at."""
    output = Path(folder_paths.get_output_directory()).resolve()
    path = (output / file).resolve()
    if not path.is_relative_to(output) or not path.is_file():
        raise ValueError(f"file: {file!r} is not in the output folder; run LocoGen Layer Search, which saves one there")
    return path


class LayersLoadNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_LayersLoad",
            display_name="LoCo Layers Load",
            category="loco",
            search_aliases=["load layers", "found layers", "saved search", "search result"],
            description="Loads the layers that LocoGen Layer Search found and saved, so that you search only once.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=saved_searches() or [NO_FILE],
                    tooltip="The .json file of a search in the output folder. The newest is first.",
                )
            ],
            outputs=[
                layers_output("The layers"),
                io.String.Output(display_name="text", tooltip="Which layers, and which search found them."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> float:
        return _path(file).stat().st_mtime

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        layers, text = read_layers(_path(file).read_text(encoding="utf-8"), file)
        return node_output(cls, layers, text, text=text)


NODES = [LayersLoadNode]
