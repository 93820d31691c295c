"""What a search has made, kept on disk: a stopped search goes on where it ended, and one asked again is there at once.

    journal = Journal.open(folder, search_settings(plan, engine.digest(), scorer))
    result = search(engine, scorer, plan, rows_per_batch=8, journal=journal)

A journal belongs to one search: its folder is named by a digest of the search's settings, so that a changed setting
starts another. Each finished batch is one .npz file, written to a temporary name and renamed: whenever the process is
killed, a batch is there as a whole or not at all. Nothing is pickled.

Batches are the unit because an image depends, by rounding, on the batch in which it was made. A search that divides its
cells into batches as before finds whole batches here and makes the missing ones in their old composition: its scores
are those of a run that was never interrupted. With another number of rows per batch it finds the same cells in other
batches, and what it makes again differs by rounding.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..files import replacing, write_text
from ..models.layers import LayerSet
from ..scoring.clip_score import Scorer
from .plan import SearchPlan
from .score_table import Cell

logger = logging.getLogger(__name__)

FORMAT = 2
SETTINGS = "settings.json"
BATCHES = f"batch_{'[0-9]' * 6}.npz"
# What the name of a journal, or of a batch in it, ends with that cannot be used.
ASIDE = ".damaged"
# A journal that nobody has asked for for so long is removed when another search begins.
KEPT_DAYS = 30


@dataclass(frozen=True)
class Finished:
    """scores: float32 [cells], NaN without a scorer; thumbnails: uint8 [cells, h, w, 3]."""

    scores: np.ndarray
    thumbnails: np.ndarray


class Journal:
    """The finished cells of one search. `open` begins or continues it."""

    def __init__(self, folder: Path, finished: dict[Cell, tuple[float, np.ndarray]], batches: int) -> None:
        self.folder = folder
        self._finished, self._batches = finished, batches

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, object]) -> Journal:
        """The journal of the search with these settings, in a folder of its own inside `folder`.

        `settings` is all that a score depends on, as JSON has it (see `search_settings`).
        """
        text = json.dumps({"format": FORMAT, **settings}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        own = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        _remove_old(folder, own)
        if not _reads(own / SETTINGS, text):
            if (own / SETTINGS).exists() or any(own.glob(BATCHES)):
                _set_aside(own, "its settings cannot be read, or are another search's")
            write_text(own / SETTINGS, text)
        os.utime(own)  # asked for now
        finished: dict[Cell, tuple[float, np.ndarray]] = {}
        last = 0
        for path in sorted(own.glob(BATCHES)):
            last = int(path.stem.removeprefix("batch_"))
            try:
                finished |= _read_batch(path, scored=settings.get("scorer") is not None)
            except Exception as error:  # a torn archive raises whatever its bytes happen to mean
                _set_aside(path, f"{type(error).__name__}: {error}; its images are made again")
        return cls(own, finished, last)

    def __len__(self) -> int:
        """How many cells are finished."""
        return len(self._finished)

    def known(self, cells: Sequence[Cell]) -> Finished | None:
        """What was made of these cells, in their order; None where one of them is missing."""
        if not all(cell in self._finished for cell in cells):
            return None
        scores, thumbnails = zip(*(self._finished[cell] for cell in cells), strict=True)
        return Finished(np.array(scores, np.float32), np.stack(thumbnails))

    def add(self, cells: Sequence[Cell], made: Finished) -> None:
        """Writes a finished batch; its thumbnails have one size in all batches.

        A disk that cannot take it is a warning: the search goes on, only this batch would have to be made again.
        """
        scores, thumbnails = np.asarray(made.scores, np.float32), np.asarray(made.thumbnails, np.uint8)
        if scores.shape != (len(cells),) or thumbnails.shape[:1] != scores.shape:
            raise ValueError(
                f"journal: {len(cells)} cells, scores {scores.shape}, thumbnails {thumbnails.shape}; give one "
                "score and one thumbnail per cell"
            )
        self._finished |= _by_cell(cells, scores, thumbnails)
        self._batches += 1
        told = np.array(json.dumps([asdict(cell) for cell in cells], ensure_ascii=False))
        try:
            with replacing(self.folder / f"batch_{self._batches:06}.npz") as unfinished, unfinished.open("wb") as file:
                np.savez_compressed(file, cells=told, scores=scores, thumbnails=thumbnails)
        except OSError as error:
            logger.warning("journal: a finished batch could not be written to %s: %s", self.folder, error)


def search_settings(plan: SearchPlan, model: str, scorer: Scorer | None) -> dict[str, object]:
    """All that a cell's score depends on. `model`: the model's digest.

    How windows are tried, and how many rows go into a batch, is none of it.
    """
    return {
        "model": model,
        "scorer": scorer and f"{scorer.name} {scorer.digest}",
        "attribute": plan.attribute,
        "part": plan.part,
        "pairs": [asdict(pair) for pair in plan.pairs],
        "seeds": list(plan.seeds),
        "sampling": asdict(plan.sampling),
    }


def _by_cell(cells: Sequence[Cell], scores: np.ndarray, thumbnails: np.ndarray) -> dict[Cell, tuple[float, np.ndarray]]:
    return {cell: (float(score), picture) for cell, score, picture in zip(cells, scores, thumbnails, strict=True)}


def _read_batch(path: Path, scored: bool) -> dict[Cell, tuple[float, np.ndarray]]:
    """The cells of a batch file; an error where it is not one, or torn."""
    with zipfile.ZipFile(path) as archive:
        if (torn := archive.testzip()) is not None:
            raise ValueError(f"{torn} in it is torn")
    with np.load(path, allow_pickle=False) as content:
        told, scores, thumbnails = json.loads(str(content["cells"])), content["scores"], content["thumbnails"]
    cells = [
        Cell(window and LayerSet(tuple(window["indices"]), window["layer_count"]), cell["image"])
        for cell in told
        for window in [cell["window"]]
    ]
    if scores.shape != (len(cells),) or thumbnails.ndim != 4 or thumbnails.dtype != np.uint8:
        raise ValueError(f"scores {scores.shape} and thumbnails {thumbnails.shape} of {len(cells)} cells")
    if scored and not np.isfinite(scores).all():
        raise ValueError("NaN or Inf in a score")
    return _by_cell(cells, scores, thumbnails)


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _set_aside(path: Path, reason: str) -> None:
    """Renames what cannot be used, so that a person can look at it, and says so."""
    aside = path.with_name(path.name + ASIDE)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{ASIDE}_{number}")
    path.rename(aside)
    logger.warning("journal: %s is damaged and was set aside as %s (%s)", path, aside.name, reason)


def _remove_old(folder: Path, own: Path) -> None:
    """Removes the journals of other searches that nobody has asked for for KEPT_DAYS."""
    too_old = time.time() - KEPT_DAYS * 24 * 3600
    for other in folder.glob("*"):
        ours = re.fullmatch(rf"[0-9a-f]{{16}}({re.escape(ASIDE)}\w*)?", other.name)
        if ours and other != own and other.stat().st_mtime < too_old:
            shutil.rmtree(other, ignore_errors=True)
