"""Plain text is what the host reads in a prompt: the same tokens, whatever their weights."""

from __future__ import annotations

import pytest

from loco_core.prompt_text import literal, plain_text

PROMPTS = [
    "a (red:1.2) star, ((woodcut)), (a (blue:1.3) fish:0.5)",
    r"art by name \(artist\), (name \(artist\):1.2)",
    "a clock (12:30), (scene: night), (a:b:1.2), (:1.2), ()",
    "a cat :) (happy)",
    "((red) star",
    "(van:1.2)(gogh), cat(s:1.3)",
    "{cat|dog} {0} {} (葛饰北斋:1.2)、猫",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_host_reads_plain_text_as_it_reads_the_prompt(demo, prompt):
    def tokens(text: str) -> list[int]:
        (tower,) = demo.clip.tokenize(text).values()
        return [token for chunk in tower for token, *_ in chunk]

    assert tokens(literal(plain_text(prompt))) == tokens(prompt)
