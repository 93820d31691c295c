"""The exported LoRA of an ablation: it scales the neurons' rows and no other."""

from __future__ import annotations

import pytest
import torch

from loco_core.models.family import Naming
from loco_core.models.layers import PROJECTIONS, Part
from loco_core.neurons.ablation import Replacement
from loco_core.neurons.lora import ablation_lora
from made_up import SD15


def weights(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(layer))
    values[3] = 0
    return keys, values


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_the_factors_of_an_ablation_scale_its_rows_and_no_other(factor):
    chosen = {(8, Part.VALUES): [2, 3, 7], (8, Part.KEYS): [5]}
    ablation = {
        place: Replacement(torch.tensor(rows), factor, torch.zeros(len(rows))) for place, rows in chosen.items()
    }
    tensors = ablation_lora(ablation, SD15, weights)
    for (_, projection), rows in chosen.items():
        weight = weights(8)[PROJECTIONS.index(projection)]
        name = SD15.family.lora_key(SD15[8], projection, SD15, Naming.KOHYA)
        up, down = (tensors[f"{name}.lora_{side}.weight"].double() for side in ("up", "down"))
        expected = torch.zeros_like(weight).double()
        expected[rows] = (factor - 1) * weight[rows].double()
        assert len(down) == tensors[f"{name}.alpha"] == 3
        torch.testing.assert_close(up @ down, expected, rtol=2e-3, atol=1e-6)  # two factors in float16


def test_a_mean_is_no_lora():
    ablation = {(8, Part.KEYS): Replacement(torch.tensor([1]), 0.0, torch.ones(1))}
    with pytest.raises(ValueError, match="mode: a LoRA has no bias to hold a mean; choose 'zero' or 'scale'"):
        ablation_lora(ablation, SD15, weights)


@pytest.mark.parametrize(
    "ablation", [{}, {(8, Part.KEYS): Replacement(torch.tensor([1]), 1.0, torch.zeros(1))}], ids=["none", "scale 1"]
)
def test_an_ablation_that_changes_nothing_is_no_lora(ablation):
    with pytest.raises(ValueError, match="count: nothing is changed"):
        ablation_lora(ablation, SD15, weights)
