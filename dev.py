"""Set up, try and test ComfyUI-Loco: `python dev.py setup`, `python dev.py demo`, `python dev.py test`.

Needs nothing but Python. Finds ComfyUI (COMFYUI_PATH, the one this pack is installed in, ~/comfy/ComfyUI, else a clone
of COMFYUI_TAG) and goes on with diffusers where there is none. Uses the running interpreter where the requirements are
installed, else a .venv made here.

`test` checks style and types and runs the fast tests, in about twelve minutes on two cores; `test --all` runs every
test, for which it writes 20 GB of models; `test --clean` removes these; `test PATH...` runs the tests in those paths.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COMFYUI_URL = "https://github.com/comfyanonymous/ComfyUI"
COMFYUI_TAG = "v0.33.0"
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
# What diffusers loads LoRAs with.
LORA_LOADER = ["peft>=0.18"]
DEVELOPMENT = ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.9", "mypy>=1.14", "playwright>=1.49", *LORA_LOADER]
# Test processes at once. Most tests run the demo model, which is too small to gain from more threads than one.
WORKERS = 2
# Tests whose models leave no memory for others on the machines that people have: each in a process of its own.
BIG = ["tests/host/full_size", "tests/host/browser"]
VENV = ROOT / ".venv"
CLONE = ROOT / ".comfyui"
FULL_SIZE = ROOT / "tests" / "host" / "full_size" / "cache_folder.py"


def find_comfyui() -> Path | None:
    """ComfyUI's folder: the one named, the one around us, comfy-cli's default, or one cloned before."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        if not is_comfyui(Path(named)):
            sys.exit(f"COMFYUI_PATH is {named}, which is not a ComfyUI folder (it has no main.py and comfy/).")
        return Path(named).resolve()
    for folder in (ROOT.parent.parent, Path.home() / "comfy" / "ComfyUI", CLONE):
        if is_comfyui(folder):
            return folder
    return None


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def clone_comfyui() -> Path | None:
    """Clones ComfyUI; None where that fails."""
    print(f"ComfyUI not found; cloning {COMFYUI_TAG} into {CLONE}", flush=True)
    git = shutil.which("git")
    command = [git, "clone", "--quiet", "--depth", "1", "--branch", COMFYUI_TAG, COMFYUI_URL, str(CLONE)]
    if git is None or subprocess.run(command, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}).returncode != 0:
        print(
            "ComfyUI could not be cloned: going on without it, on diffusers. COMFYUI_PATH names a folder.", flush=True
        )
        return None
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


def environment(job: str, comfyui: Path | None) -> Path:
    """The interpreter to use, with everything installed that the job requires.

    That is the running one where ComfyUI's requirements (without a ComfyUI, PyTorch) are installed: it gets no more
    than the job needs. Else it is a .venv for all jobs.
    """
    pack, script = (read_requirements(ROOT / name) for name in ("requirements.txt", "requirements-script.txt"))
    everything = [*pack, *script, *DEVELOPMENT]
    theirs = read_requirements(comfyui / "requirements.txt") if comfyui else ["torch"]
    if not missing(theirs):
        demo = pack if comfyui else [*pack, *script, *LORA_LOADER]
        absent = missing(demo if job == "demo" else everything)
        if absent:
            install_beside(absent)
        return Path(sys.executable)
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = hashlib.sha256("\n".join([*TORCH, *theirs, *everything]).encode()).hexdigest()[:12]
    done = VENV / f"installed-{wanted}"
    if not done.is_file():
        print(f"Installing PyTorch and all requirements into {VENV}; this takes some minutes", flush=True)
        for other in VENV.glob("installed-*"):  # it is changed in place: only what differs is installed anew
            other.unlink()
        venv.create(VENV, with_pip=True)
        install(python, TORCH)
        install(python, ["-r", str(comfyui / "requirements.txt"), *everything] if comfyui else everything)
        done.touch()
    return python


def install(python: Path, packages: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"pip could not install {' '.join(packages)}; its message above tells why.")


def install_beside(packages: list[str]) -> None:
    """Installs into the running interpreter without changing any package that is there: others rely on them."""
    present = {f"{found.name}=={found.version}" for found in metadata.distributions() if found.name}
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(present)) + "\n", encoding="utf-8")
        install(Path(sys.executable), [*packages, "--constraint", str(constraints)])


def run(command: list[str], comfyui: Path | None, **variables: str) -> int:
    """Runs it in the repository, with COMFYUI_PATH in its environment where there is a ComfyUI; its exit code."""
    print("$", *command, flush=True)
    named = {"COMFYUI_PATH": str(comfyui)} if comfyui else {}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **named, **variables}).returncode


def test(python: str, comfyui: Path | None, paths: list[str], everything: bool) -> int:
    """Style, types, and the tests in `paths`, or in all of tests/; 0 where everything passed.

    Slow tests run only with `everything` (tests/conftest.py); the big ones then run by themselves, after all others.
    Caches stay in the repository and the temporary folder.
    """
    variables = {
        "MPLCONFIGDIR": str(Path(tempfile.gettempdir()) / "comfyui-loco-matplotlib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "loco_core"]]
    failed = [run([python, "-m", *check], comfyui, **variables) != 0 for check in checks]
    # The workers share the processor's cores: threads that wait for each other's core take many times as long.
    workers = ["--numprocesses", str(WORKERS), "--dist", "loadgroup"]
    threads = str(max(1, (os.cpu_count() or 1) // WORKERS))
    tests = [python, "-m", "pytest", "-q", *(["--all"] if everything else [])]
    alone = BIG if everything and not paths else []
    ignored = [f"--ignore={path}" for path in alone]
    failed.append(run([*tests, *workers, *ignored, *paths], comfyui, OMP_NUM_THREADS=threads, **variables) != 0)
    failed += [run([*tests, path], comfyui, **variables) != 0 for path in alone]
    return int(any(failed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["setup", "demo", "test"])
    parser.add_argument("paths", nargs="*", help="of test: the files or folders with the tests to run, else tests/")
    parser.add_argument(
        "--all",
        action="store_true",
        help="of test: the slow tests too, which write 20 GB of models; of demo: every style and fact, some 30 minutes",
    )
    parser.add_argument("--clean", action="store_true", help="of test: remove those 20 GB of models, and test nothing")
    arguments = parser.parse_args()
    job = arguments.job
    if job != "test" and (arguments.paths or arguments.clean):
        parser.error("paths and --clean belong to test")
    if arguments.clean:
        return run([sys.executable, str(FULL_SIZE)], None)
    comfyui = find_comfyui()
    if comfyui is None:
        if os.environ.get("CI"):
            sys.exit("ComfyUI was not found: set COMFYUI_PATH.")
        comfyui = clone_comfyui()
    python = str(environment(job, comfyui))
    print(f"ComfyUI: {comfyui or 'none, using diffusers'}\nPython:  {python}", flush=True)
    if job == "demo":
        return run([python, str(ROOT / "demo" / "run.py"), *(["--all"] if arguments.all else [])], comfyui)
    if job == "test":
        return test(python, comfyui, arguments.paths, arguments.all)
    return 0


if __name__ == "__main__":
    sys.exit(main())
