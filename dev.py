"""Set up, try and test ComfyUI-Loco: `python dev.py setup`, `python dev.py demo`, `python dev.py test`.

Needs nothing but Python. Finds ComfyUI (COMFYUI_PATH, the one this pack is installed in, ~/comfy/ComfyUI, else a clone
of COMFYUI_TAG) and uses the running interpreter where ComfyUI's requirements are installed, else a .venv made here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COMFYUI_URL = "https://github.com/comfyanonymous/ComfyUI"
COMFYUI_TAG = "v0.33.0"
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
DEVELOPMENT = ["pytest>=8", "ruff>=0.9"]
VENV = ROOT / ".venv"
CLONE = ROOT / ".comfyui"


def find_comfyui() -> Path | None:
    """ComfyUI's folder: the one named, the one around us, comfy-cli's default, or one cloned before."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        if not is_comfyui(Path(named)):
            sys.exit(f"COMFYUI_PATH is {named}, which is not a ComfyUI folder (it has no main.py and comfy/).")
        return Path(named).resolve()
    for folder in (ROOT.parents[1], Path.home() / "comfy" / "ComfyUI", CLONE):
        if is_comfyui(folder):
            return folder
    return None


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def clone_comfyui() -> Path:
    print(f"ComfyUI not found; cloning {COMFYUI_TAG} into {CLONE}", flush=True)
    git = shutil.which("git")
    command = [git, "clone", "--quiet", "--depth", "1", "--branch", COMFYUI_TAG, COMFYUI_URL, str(CLONE)]
    if git is None or subprocess.run(command).returncode != 0:
        sys.exit(
            "ComfyUI was not found and could not be cloned: set COMFYUI_PATH to a ComfyUI folder "
            f"({COMFYUI_TAG} is tested), or make {COMFYUI_URL} reachable."
        )
    return CLONE


def missing(requirements: list[str]) -> list[str]:
    """The requirements whose package is not installed for the running interpreter."""
    absent = []
    for requirement in requirements:
        name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(requirement)
    return absent


def read_requirements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def environment(comfyui: Path) -> Path:
    """The interpreter to use, with everything installed that ComfyUI, the pack and its tests require."""
    ours = read_requirements(ROOT / "requirements.txt") + DEVELOPMENT
    if not missing(read_requirements(comfyui / "requirements.txt")):
        if missing(ours):
            install(Path(sys.executable), missing(ours))
        return Path(sys.executable)
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = VENV / f"installed-for-{COMFYUI_TAG}"
    if not done.is_file():
        print(f"Installing PyTorch and the requirements of ComfyUI into {VENV}; this takes some minutes", flush=True)
        venv.create(VENV, with_pip=True, clear=True)
        install(python, TORCH)
        install(python, ["-r", str(comfyui / "requirements.txt"), *ours])
        done.touch()
    return python


def install(python: Path, packages: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"pip could not install {' '.join(packages)}; its message above tells why.")


def run(command: list[str], comfyui: Path) -> int:
    print("$", *command, flush=True)
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "COMFYUI_PATH": str(comfyui)}).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["setup", "demo", "test"])
    job = parser.parse_args().job
    comfyui = find_comfyui()
    if comfyui is None:
        if os.environ.get("CI"):
            sys.exit("ComfyUI was not found: set COMFYUI_PATH.")
        comfyui = clone_comfyui()
    python = str(environment(comfyui))
    print(f"ComfyUI: {comfyui}\nPython:  {python}", flush=True)
    if job == "demo":
        return run([python, str(ROOT / "demo" / "run.py")], comfyui)
    if job == "test":
        checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["pytest", "-q"]]
        return max(run([python, "-m", *check], comfyui) for check in checks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
