"""Files in ComfyUI's own folders: where results go, and where saved edits lie."""

from __future__ import annotations

from pathlib import Path

import comfyui_version
import folder_paths
import torch

EDITS = "loco_edits"
"""In models/, and in output/, where LoCo Edit Save puts them."""
NO_FILE = "no edit saved yet"


def register_edits() -> None:
    for parent in (folder_paths.models_dir, folder_paths.get_output_directory()):
        folder_paths.add_model_folder_path(EDITS, str(Path(parent) / EDITS))


def edit_files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(EDITS) if name.endswith(".safetensors")]


def edit_path(file: str) -> Path:
    """The file in one of the folders; a name cannot lead out of them."""
    path = folder_paths.get_full_path(EDITS, file)
    if path is None:
        raise ValueError(f"file: {file!r} is not in models/{EDITS} or output/{EDITS}; LoCo Edit Save puts one there")
    return Path(path)


def output_path(prefix: str, suffix: str) -> Path:
    """A new file's path in the output folder."""
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except Exception as error:  # the host raises nothing more precise
        raise ValueError(f"filename_prefix: {prefix!r} leads out of the output folder; give a name in it") from error
    return Path(folder) / f"{name}_{counter:05}_{suffix}"


def output_name(path: Path) -> str:
    """The path as seen from the output folder, with forward slashes."""
    return path.relative_to(folder_paths.get_output_directory()).as_posix()


def versions() -> dict[str, str]:
    """The programs that made a file."""
    return {"comfyui": comfyui_version.__version__, "torch": torch.__version__}
