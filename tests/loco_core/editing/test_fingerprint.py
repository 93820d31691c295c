"""What tells text encoders apart: numbers of an embedding."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from loco_core.editing.file import load_edit, save_edit
from loco_core.editing.fingerprint import NUMBERS, SAME_ENCODER, difference, fingerprint
from loco_core.editing.solve import solve_edit
from made_up import encode, recipe


def changed(change):
    """The made-up encoder with its embeddings changed."""
    return lambda prompts: [replace(one, tokens=change(one.tokens)) for one in encode(prompts)]


def apart(change) -> float:
    return difference(fingerprint(encode), fingerprint(changed(change)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_rounding_makes_no_other_encoder(kind):
    assert apart(lambda tokens: tokens.to(kind)) <= SAME_ENCODER


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens: tokens.flip(0),
        lambda tokens: 1.2 * tokens,
        lambda tokens: tokens + 0.2 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0)),
        lambda tokens: -tokens,
        torch.zeros_like,
    ],
    ids=["other tokens", "other size", "a fine-tune", "other sign", "nothing"],
)
def test_other_embeddings_are_another_encoder(change):
    assert apart(change) > SAME_ENCODER


def test_encoders_of_other_widths_are_told_apart():
    assert apart(lambda tokens: torch.cat([tokens, tokens], 1)) > SAME_ENCODER


def test_two_encoders_that_give_nothing_are_the_same():
    nothing = fingerprint(changed(torch.zeros_like))
    assert difference(nothing, nothing) == 0


def test_a_solved_recipe_carries_the_numbers_of_its_encoder_into_the_file(tmp_path):
    edit = solve_edit(encode, recipe())
    save_edit(edit, tmp_path / "edit.safetensors", {})
    assert load_edit(tmp_path / "edit.safetensors").recipe.fingerprint == fingerprint(encode)
    assert len(fingerprint(encode)) == NUMBERS


def test_a_file_without_them_is_loaded(tmp_path):
    save_edit(solve_edit(encode, recipe()), tmp_path / "edit.safetensors", {})
    with safe_open(tmp_path / "edit.safetensors", "pt") as file:
        tensors, told = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    content = json.loads(told["loco_recipe"])
    del content["fingerprint"]
    save_file(tensors, tmp_path / "old.safetensors", metadata=told | {"loco_recipe": json.dumps(content)})
    assert load_edit(tmp_path / "old.safetensors").recipe.fingerprint == ()
