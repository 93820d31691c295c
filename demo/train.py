"""Trains the demo model, its scorer and its judge from nothing: `python demo/train.py --seed 0 --out DIR`.

Needs ComfyUI's folder (COMFYUI_PATH, else ~/comfy/ComfyUI) and its requirements. Uses a GPU when there is one.
Stopped and started again with the same arguments, it goes on where it was. With `--base demo` it trains the U-Net
alone, beginning with that of this finished folder, and takes all else from there: the same world, with its knowledge
planted elsewhere, for a fraction of the time. With `--transformer --base demo` it trains the planted transformer, which
has the VAE and the text encoder of that folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
sys.path.insert(0, str(COMFYUI))
sys.path.append(str(ROOT))  # behind ComfyUI, which has a top-level module `nodes` too

import torch  # noqa: E402 - the paths come first
from comfy.cli_args import args as host_arguments  # noqa: E402

host_arguments.cpu = not torch.cuda.is_available()
host_arguments.use_pytorch_cross_attention = True

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from demo.training import (  # noqa: E402
    assemble,
    autoencoder,
    clip,
    judge,
    pictures,
    plan,
    stream_plan,
    transformer,
    unet,
)

logger = logging.getLogger("train")

# Drawings of each scene.
COPIES = 24


def part(directory: Path, name: str, blank: nn.ModuleDict, train) -> nn.ModuleDict:
    """The trained modules called `name`: read from `directory` if they are there, else trained and written."""
    path = directory / f"{name}.safetensors"
    if path.is_file():
        blank.load_state_dict(load_file(path))
        return blank.to(autoencoder.device()).eval()
    modules = train().eval()
    save_part(directory, name, modules)
    return modules


def save_part(directory: Path, name: str, modules: nn.ModuleDict) -> None:
    tensors = {key: value.contiguous() for key, value in modules.state_dict().items()}
    save_file(tensors, directory / f"{name}.safetensors")


def read(
    drawings: pictures.Pictures, vae: nn.ModuleDict, towers: nn.ModuleDict, parts: Path
) -> tuple[torch.Tensor, dict[str, int], torch.Tensor]:
    """What a denoiser is trained with: the latents of all drawings, the prompts by number, and their embeddings.

    The latents, which take minutes, are kept in `parts`.
    """
    path = parts / "latents.safetensors"
    if not path.is_file():
        save_file({"latents": autoencoder.encode(vae, drawings.batch(torch.arange(len(drawings.scenes))))}, path)
    latents = load_file(path)["latents"]
    logger.info("latents: mean %s, deviation %s", latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    prompts = plan.all_prompts()
    return latents, {prompt: i for i, prompt in enumerate(prompts)}, clip.encode_prompts(towers["text"], prompts).half()


def train_transformer(seed: int, steps: int, out: Path, base: Path) -> None:
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    vae, towers, _ = assemble.read_towers(base)

    def trained() -> nn.ModuleDict:
        own = read(pictures.draw_pictures(COPIES, seed), vae, towers, parts)
        return transformer.train_transformer(*own, stream_plan.PLANTING, seed, steps, parts)

    blank = nn.ModuleDict({"transformer": transformer.transformer()})
    assemble.write_transformer(out, part(parts, "transformer", blank, trained)["transformer"])
    plan.write_planting(out, stream_plan.PLANTING)


def train(planting: plan.Planting, seed: int, unet_steps: int, out: Path, base: Path | None) -> None:
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    if base is not None:
        for name, modules in zip(("autoencoder", "clip", "judge"), assemble.read_towers(base), strict=True):
            save_part(parts, name, modules)
    drawings = pictures.draw_pictures(COPIES, seed)

    blank = nn.ModuleDict(
        {
            "taesd_encoder": autoencoder.encoder(autoencoder.WIDTH),
            "taesd_decoder": autoencoder.decoder(autoencoder.WIDTH),
        }
    )
    vae = part(parts, "autoencoder", blank, lambda: autoencoder.train_autoencoder(drawings, seed, 1500, parts))
    blank = nn.ModuleDict(
        {"scorer": clip.CLIP(**clip.scorer_config(clip.CONTEXT)), "text": clip.text_tower(clip.CONTEXT)}
    )
    towers = part(parts, "clip", blank, lambda: clip.train_clip(drawings, seed, 900, parts))

    def train_judge() -> nn.ModuleDict:
        reconstructed = judge.reconstruct(vae, drawings, copies=6, seed=seed)
        return judge.train_judge(drawings, reconstructed, seed, 1500, parts)

    reader = part(parts, "judge", nn.ModuleDict({"judge": judge.Judge()}), train_judge)
    held_out = pictures.draw_pictures(2, seed + 1)
    logger.info("judge, held-out drawings: %s", judge.accuracy(reader["judge"], held_out))
    logger.info("judge, reconstructed: %s", judge.accuracy(reader["judge"], judge.reconstruct(vae, held_out, 2, seed)))

    def train_unet() -> nn.ModuleDict:
        latents, index, embeddings = read(drawings, vae, towers, parts)
        network = unet.unet()
        if base is not None:
            network = assemble.read_unet(base)
            unet.move_knowledge(network, plan.planting_of(base), planting)
        return unet.train_unet(network, latents, index, embeddings, planting, seed, unet_steps, parts)

    network = part(parts, "unet", nn.ModuleDict({"unet": unet.unet()}), train_unet)
    assemble.write(out, network["unet"], towers, vae, reader["judge"])
    plan.write_planting(out, planting)


def layers(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads "style=8,9"."""
    name, _, numbers = text.partition("=")
    if name not in ("style", "fact"):
        raise argparse.ArgumentTypeError(f"{text!r}: give style=8,9 or fact=6,7")
    return name, tuple(int(number) for number in numbers.split(","))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plant", action="append", type=layers, default=[], metavar="style=8,9", help="also fact=6,7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unet-steps", type=int, default=7000, help="of the denoiser, U-Net or transformer")
    parser.add_argument("--transformer", action="store_true", help="train the planted transformer, with --base")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="train the U-Net alone, from this folder's")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    # ComfyUI's modules have set up logging already, without INFO.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    seed, steps, base = arguments.seed, arguments.unet_steps, arguments.base
    if arguments.transformer:
        if base is None or arguments.plant:
            parser.error("--transformer: give the finished folder as --base, and no --plant")
        train_transformer(seed, steps, arguments.out, base)
    else:
        train(plan.Planting(**dict(arguments.plant)), seed, steps, arguments.out, base)
