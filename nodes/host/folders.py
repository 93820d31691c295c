"""Files in ComfyUI's own folders: where results go, and where saved edits, neurons and scorers lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import comfyui_version
import folder_paths
import torch

from ...loco_core.files import replacing
from .demo_model import DEMO

# In models/, and in output/, where LoCo Edit Save and LoCo Neuron Save put them.
EDITS, NEURONS = "loco_edits", "loco_neurons"
# In models/, and the demo's.
SCORERS = "open_clip"
NO_FILE = "nothing saved yet"
# A text file of more bytes is no list of names.
MOST_TEXT = 2**20


def register_folders() -> None:
    for folder in (EDITS, NEURONS):
        for parent in (folder_paths.models_dir, folder_paths.get_output_directory()):
            folder_paths.add_model_folder_path(folder, str(Path(parent) / folder))
    for parent in (Path(folder_paths.models_dir), DEMO):
        folder_paths.add_model_folder_path(SCORERS, str(parent / SCORERS))


def safetensors_files(folder: str) -> list[str]:
    """With forward slashes, so that a workflow names its file alike on every system."""
    return [Path(name).as_posix() for name in folder_paths.get_filename_list(folder) if name.endswith(".safetensors")]


def saved_path(folder: str, file: str) -> Path:
    """The file in models/ or output/; a name cannot lead out of them."""
    path = folder_paths.get_full_path(folder, file)
    if path is None:
        raise ValueError(f"file: {file!r} is not in models/{folder} or output/{folder}; the Save node puts one there")
    return Path(path)


def changed_at(path_of: Callable[[str], Path], file: str | None) -> float:
    """When a file was last written: what a node's result depends on. 0 for a linked name, not known before the run."""
    return 0.0 if file is None else path_of(file).stat().st_mtime


def scorer_path(file: str) -> Path:
    """The file of open_clip weights."""
    path = folder_paths.get_full_path(SCORERS, file)
    if path is None:
        raise ValueError(
            f"file: {file!r} is not in models/{SCORERS}. Get a CLIP model in open_clip's format, for instance "
            "timm/vit_base_patch16_clip_224.openai from the Hugging Face Hub (open_clip_model.safetensors and "
            f"open_clip_config.json), and put both files in models/{SCORERS}/ViT-B-16"
        )
    return Path(path)


def saved_searches() -> list[str]:
    """The JSON files of searches in the output folder, newest first, with forward slashes: others have other names."""
    output = Path(folder_paths.get_output_directory())
    listed = os.walk(output, followlinks=True)  # as the host does, whose list takes seconds for 200,000 images
    files = [Path(folder) / name for folder, _, names in listed for name in names if name.endswith("_.json")]
    newest_first = sorted(filter(Path.is_file, files), key=os.path.getmtime, reverse=True)
    return [path.relative_to(output).as_posix() for path in newest_first]


def search_path(file: str) -> Path:
    """The file of a search in the output folder; a name that leads out of it is not looked at."""
    output = Path(os.path.abspath(folder_paths.get_output_directory()))
    path = Path(os.path.abspath(output / file))  # links in the folder may lead to other places, names may not
    if not path.is_relative_to(output) or not path.is_file():
        raise ValueError(f"file: {file!r} is not in the output folder; run LoCo Layer Search, which saves one there")
    return path


def input_text(file: str) -> str:
    """The text of a file in the input folder."""
    try:
        return input_path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"file: {file!r} is not a text file in UTF-8 ({error})") from error


def input_path(file: str) -> Path:
    """A text file in the input folder; a name that leads out of it is not looked at, and a huge one not read."""
    folder = Path(os.path.abspath(folder_paths.get_input_directory()))
    path = Path(os.path.abspath(folder / file))
    if not path.is_relative_to(folder) or not path.is_file():
        raise ValueError(f"file: {file!r} is not in ComfyUI's input folder; put the text file there")
    if path.stat().st_size > MOST_TEXT:
        raise ValueError(f"file: {file!r} is larger than {MOST_TEXT // 2**20} MB; give one with a name in every line")
    return path


def output_path(prefix: str, suffix: str) -> Path:
    """A new file's path in the output folder, where it can be written: that is known before the work begins."""
    normal = os.path.normpath(prefix.strip())  # the host counts no files of a name that ends with a slash
    if os.path.basename(normal) in ("", ".", ".."):
        raise ValueError(f"filename_prefix: {prefix!r} holds no name; give one, like 'loco/mine'")
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(normal, folder_paths.get_output_directory())
        path = Path(folder) / f"{name}_{counter:05}_{suffix}"
        with replacing(path) as unfinished:
            unfinished.write_bytes(b"\n")
        path.unlink()
    except OSError as error:
        raise ValueError(f"filename_prefix: {prefix!r} cannot be written to ({error}); give another name") from error
    except Exception as error:  # the host raises nothing more precise
        raise ValueError(
            f"filename_prefix: {prefix!r} leads out of the output folder, or through a link in it, which this ComfyUI "
            "does not save into; give a name in it"
        ) from error
    return path


def output_name(path: Path) -> str:
    """The path as seen from the output folder, with forward slashes."""
    return path.relative_to(folder_paths.get_output_directory()).as_posix()


def search_journals() -> Path:
    """Where searches keep what they have made."""
    return Path(folder_paths.get_output_directory()) / "loco" / "journals"


def versions() -> dict[str, str]:
    """The programs that made a file."""
    return {"comfyui": comfyui_version.__version__, "torch": torch.__version__}
