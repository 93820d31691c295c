"""The images before and after an edit, side by side."""

from __future__ import annotations

import numpy as np

from ..drawing import before_after_sheet
from ..prompt_text import plain_text
from .erasure import ErasureResult


def erasure_sheet(result: ErasureResult) -> np.ndarray:
    """The concept prompts' images before and after, the kept prompts' below. Returns uint8 [H, W, 3]."""
    plan, split = result.plan, len(result.concept.before)
    prompts = [plain_text(prompt) for prompt in plan.shown for _ in plan.seeds]
    parts = [(result.verdict, slice(split)), *([("to keep", slice(split, None))] if result.kept else [])]
    sheets = [
        before_after_sheet(title, result.thumbnails_before[part], result.thumbnails_after[part], prompts[part])
        for title, part in parts
    ]
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(padded)
