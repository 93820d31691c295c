"""The images before and after an edit, side by side."""

from __future__ import annotations

import numpy as np

from ..drawing import before_after_sheet
from ..prompt_text import plain_text
from .erasure import ErasureResult


def erasure_sheet(result: ErasureResult) -> np.ndarray:
    """The concept prompts' images before and after, the kept prompts' below. Returns uint8 [H, W, 3]."""
    split = len(result.concept.before)
    sheets = [before_after_sheet(result.verdict, result.thumbnails_before[:split], result.thumbnails_after[:split])]
    if result.kept:
        title = "to keep: " + ", ".join(map(plain_text, result.kept))
        sheets.append(before_after_sheet(title, result.thumbnails_before[split:], result.thumbnails_after[split:]))
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets]
    return np.concatenate(padded)
