"""The judge: a small classifier that reads what a picture of the demo's world shows.

It is trained apart from everything else and never used by the method: tests, the demo and the benchmarks ask it
whether a style is there, which is what a person looking at the pictures would be asked.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from .world import COLOURS, COUNTRIES, FLAG, NONE, OBJECTS, STYLES, Scene

CLASSES: dict[str, tuple[str, ...]] = {
    "object": (*OBJECTS, FLAG),
    "colour": (*COLOURS, NONE),
    "style": (NONE, *STYLES),
    "fact": (NONE, *COUNTRIES),
}
JUDGE_FILE = Path(__file__).parent / "loco_demo_judge.safetensors"


class Judge(nn.Module):
    """Images [B, 3, 128, 128] in 0..1 -> one tensor of logits [B, classes] per attribute in CLASSES."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, 24, 48, 64, 96, 128)
        for inside, outside in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.GroupNorm(8, outside), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 16, len(words)) for name, words in CLASSES.items()})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(images * 2 - 1).flatten(1)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> dict[str, list[str]]:
        """What each image [B, 3, 128, 128] shows: a word per attribute, the likeliest by argmax."""
        logits = self(images.float())
        return {name: [CLASSES[name][i] for i in value.argmax(1).tolist()] for name, value in logits.items()}


def truth(scene: Scene) -> dict[str, str]:
    """The words a judge should read in a picture of `scene`."""
    return {
        "object": scene.object,
        "colour": scene.colour or NONE,
        "style": scene.style,
        "fact": scene.country or NONE,
    }


def load_judge(path: Path = JUDGE_FILE) -> Judge:
    judge = Judge()
    judge.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return judge.eval()
