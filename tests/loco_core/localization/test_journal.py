"""A search that was ended at any moment goes on where it was, and never from something it cannot trust."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import random
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from loco_core.localization.evaluation import Evaluation
from loco_core.localization.journal import KEPT_DAYS, Finished, Journal, search_settings
from loco_core.localization.plan import Effort, SearchPlan
from loco_core.localization.score_table import Cell
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet, Part
from loco_core.prompts import Attribute, PromptPair
from made_up import GreyScorer, Painter

SETTINGS = {"model_hash": "0123", "scorer": "clip 4567", "seeds": [0, 1], "sampling": {"steps": 20, "sampler": "euler"}}


def batch(number: int, size: int = 4) -> tuple[list[Cell], np.ndarray, np.ndarray]:
    """Cells of two windows, the unmodified image first, and what was made of them."""
    rng = np.random.default_rng(number)
    windows = [None, *(LayerSet((first, first + 1), 16) for first in range(3))]
    cells = [Cell(windows[place % 4], number) for place in range(size)]
    return cells, rng.random(size).astype(np.float32) * 100, rng.integers(256, size=(size, 8, 6, 3), dtype=np.uint8)


def add(journal: Journal, number: int) -> None:
    cells, scores, thumbnails = batch(number)
    journal.add(cells, Finished(scores, thumbnails))


def filled(folder: Path, batches: int = 3) -> Journal:
    journal = Journal.open(folder, SETTINGS)
    for number in range(batches):
        add(journal, number)
    return journal


def holds(journal: Journal, number: int) -> bool:
    """Whether the batch is known; if so, it must be what was added, bit for bit."""
    cells, scores, thumbnails = batch(number)
    found = journal.known(cells)
    if found is not None:
        np.testing.assert_array_equal(found.scores, scores)
        np.testing.assert_array_equal(found.thumbnails, thumbnails)
    return found is not None


def test_what_was_finished_is_known_bit_for_bit_when_the_search_is_run_again(tmp_path):
    filled(tmp_path)
    again = Journal.open(tmp_path, SETTINGS)
    assert [holds(again, number) for number in range(4)] == [True, True, True, False]
    assert len(again) == 12


def test_cells_are_found_one_by_one_whatever_batches_they_were_made_in(tmp_path):
    filled(tmp_path)
    first, second = batch(0)[0], batch(1)[0]
    again = Journal.open(tmp_path, SETTINGS)
    found = again.known([second[1], first[3]])
    assert found.scores.tolist() == [batch(1)[1][1], batch(0)[1][3]]
    assert again.known([*first, batch(3)[0][0]]) is None


@pytest.mark.parametrize("change", [{"window": LayerSet((0,), 16)}, {"window": LayerSet((0, 1), 70)}, {"image": 9}])
def test_a_cell_is_its_window_and_image(tmp_path, change):
    journal = filled(tmp_path)
    cell = batch(0)[0][1]
    assert journal.known([cell]) is not None
    assert journal.known([Cell(**vars(cell) | change)]) is None


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_changed_setting_starts_anew_and_the_old_one_can_still_be_continued(tmp_path, setting):
    filled(tmp_path)
    assert len(Journal.open(tmp_path, SETTINGS | {setting: "another"})) == 0
    assert len(Journal.open(tmp_path, SETTINGS)) == 12


def test_the_order_in_which_settings_are_given_does_not_matter(tmp_path):
    filled(tmp_path)
    assert len(Journal.open(tmp_path, dict(reversed(SETTINGS.items())))) == 12


def test_a_cell_made_again_is_known_as_it_was_made_last(tmp_path):
    journal = filled(tmp_path)
    cells, scores, thumbnails = batch(0)
    journal.add(cells, Finished(scores + 1, thumbnails))
    for known in (journal, Journal.open(tmp_path, SETTINGS)):
        np.testing.assert_array_equal(known.known(cells).scores, scores + 1)


def test_a_run_killed_between_writing_and_renaming_has_not_finished_that_batch(tmp_path):
    journal = filled(tmp_path)
    last = journal.folder / "batch_000003.npz"
    last.rename(last.with_name(last.name + ".part"))
    again = Journal.open(tmp_path, SETTINGS)
    assert [holds(again, number) for number in range(3)] == [True, True, False]
    add(again, 2)
    assert len(Journal.open(tmp_path, SETTINGS)) == 12
    assert sorted(path.suffix for path in journal.folder.iterdir()) == [".json", ".npz", ".npz", ".npz"]


@pytest.mark.parametrize("left", [[], ["settings.json.part"]])
def test_a_run_killed_while_it_began_is_begun_without_a_warning(tmp_path, caplog, left):
    journal = filled(tmp_path, batches=0)
    (journal.folder / "settings.json").unlink()
    for name in left:
        (journal.folder / name).write_text("{")
    add(Journal.open(tmp_path, SETTINGS), 0)
    assert holds(Journal.open(tmp_path, SETTINGS), 0)
    assert caplog.text == ""


def test_a_batch_torn_or_changed_anywhere_is_set_aside_with_a_warning_and_the_others_stay(tmp_path, caplog):
    """A hundred files cut short, a hundred with one byte changed: what is read at all is read as it was written."""
    journal = filled(tmp_path)
    path = journal.folder / "batch_000002.npz"
    good, choose = path.read_bytes(), random.Random(0)
    for case in range(200):
        place = choose.randrange(len(good))
        changed = good[:place] + bytes([good[place] ^ 1 << choose.randrange(8)]) + good[place + 1 :]
        path.write_bytes(good[:place] if case % 2 else changed)
        caplog.clear()
        again = Journal.open(tmp_path, SETTINGS)
        assert holds(again, 0) and holds(again, 2)
        if not holds(again, 1):
            assert "batch_000002.npz is damaged and was set aside as batch_000002.npz.damaged" in caplog.text
            assert not path.exists()
            (path.parent / (path.name + ".damaged")).unlink()
        else:
            assert not case % 2 and caplog.text == ""  # a byte that says nothing, as a file's date in the archive


@pytest.mark.parametrize("content", ["text", "another archive", "other shapes", "NaN", "nothing"])
def test_a_foreign_file_is_set_aside(tmp_path, caplog, content):
    journal = filled(tmp_path)
    path = journal.folder / "batch_000002.npz"
    parts = dict(np.load(path))
    if content == "text":
        path.write_text("hello")
    elif content == "another archive":
        np.savez(path, weights=np.zeros(3))
    elif content == "other shapes":
        np.savez(path, **parts | {"scores": parts["scores"][:2]})
    elif content == "NaN":
        np.savez(path, **parts | {"scores": parts["scores"] * np.nan})
    else:
        path.write_bytes(b"")
    again = Journal.open(tmp_path, SETTINGS)
    assert [holds(again, number) for number in range(3)] == [True, False, True]
    assert "was set aside" in caplog.text
    add(again, 1)
    assert len(Journal.open(tmp_path, SETTINGS)) == 12


def test_a_pickle_is_not_unpickled(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    journal = filled(tmp_path)
    np.savez(journal.folder / "batch_000002.npz", cells=np.array([Harmful()], dtype=object))
    assert len(Journal.open(tmp_path, SETTINGS)) == 8
    assert not (tmp_path / "harm").exists()


def test_a_journal_whose_settings_are_anothers_is_set_aside_as_a_whole(tmp_path, caplog):
    journal = filled(tmp_path)
    for number in range(2):
        (journal.folder / "settings.json").write_text("{}")
        again = Journal.open(tmp_path, SETTINGS)
        assert len(again) == 0
        add(again, number)
    assert caplog.text.count("was set aside") == 2
    names = sorted(path.name.removeprefix(journal.folder.name) for path in tmp_path.iterdir())
    assert names == ["", ".damaged", ".damaged_2"]


def test_journals_nobody_has_continued_are_removed_when_another_search_begins(tmp_path):
    old, recent = filled(tmp_path), Journal.open(tmp_path, SETTINGS | {"seeds": [5]})
    keep = tmp_path / "holiday pictures"
    keep.mkdir()
    for folder, days in ((old.folder, KEPT_DAYS + 1), (recent.folder, KEPT_DAYS - 1), (keep, 1000)):
        os.utime(folder, (0, time.time() - days * 24 * 3600))
    newest = Journal.open(tmp_path, SETTINGS | {"seeds": [6]})
    assert {path.name for path in tmp_path.iterdir()} == {recent.folder.name, newest.folder.name, keep.name}


def test_an_old_journal_is_continued_when_its_own_search_is_run_again(tmp_path):
    journal = filled(tmp_path)
    os.utime(journal.folder, (0, 0))
    assert len(Journal.open(tmp_path, SETTINGS)) == 12


def test_a_full_disk_is_a_warning_and_the_search_goes_on(tmp_path, caplog, monkeypatch):
    journal = filled(tmp_path)

    def full(*arguments, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    add(journal, 3)
    assert holds(journal, 3)
    assert "No space left on device" in caplog.text
    assert not list(journal.folder.glob("*.part"))


@pytest.mark.parametrize(
    ("scores", "thumbnails"),
    [
        (np.zeros(3), np.zeros((4, 8, 6, 3))),
        (np.zeros(4), np.zeros((3, 8, 6, 3))),
    ],
)
def test_a_batch_that_is_not_one_is_an_error(tmp_path, scores, thumbnails):
    with pytest.raises(ValueError, match="journal: 4 cells"):
        Journal.open(tmp_path, SETTINGS).add(batch(0)[0], Finished(scores, thumbnails))


def write_batches(folder: Path, ready: Event) -> None:
    """Continues the journal for as long as it is left alive; `ready` once it has added a batch."""
    journal = Journal.open(folder, SETTINGS)
    for number in itertools.count():
        if journal.known(batch(number)[0]) is None:
            add(journal, number)
            ready.set()


def test_killed_at_random_moments_nothing_is_damaged_and_nothing_is_lost(tmp_path, caplog):
    """SIGKILL while batches are written as fast as they can be: each run finds all that earlier ones finished."""
    processes, choose, found = multiprocessing.get_context("fork"), random.Random(1), 0
    for _ in range(3):
        ready = processes.Event()
        run = processes.Process(target=write_batches, args=(tmp_path, ready))
        run.start()
        assert ready.wait(60)
        time.sleep(choose.uniform(0, 0.1))
        run.kill()
        run.join()
        journal = Journal.open(tmp_path, SETTINGS)
        assert len(journal) >= found and len(journal) % 4 == 0
        found = len(journal)
        assert all(holds(journal, number) for number in range(found // 4))
    assert found >= 3 * 4
    assert caplog.text == ""


# --- in a search ------------------------------------------------------------------------------------------------------

STYLED, PLAIN = 'a "star" in \u00e9toil\u00e9', "a star"
SAMPLING = Sampling(4, 1.0, "euler", "normal", 16, 16)
PLAN = SearchPlan((PromptPair(STYLED, PLAIN),), (0, 1, 2), Attribute.STYLE, SAMPLING, 2, Effort.EXHAUSTIVE)


class CountingPainter(Painter):
    """Counts the images it makes, and stops at a number of them, as a search that is ended does."""

    def __init__(self, stop: int = 1000) -> None:
        super().__init__({STYLED: 0.8, PLAIN: 0.2})
        self.made, self._stop = 0, stop

    def generate(self, rows, sampling, on_step=None):
        if self.made >= self._stop:
            raise KeyboardInterrupt
        self.made += len(rows)
        return super().generate(rows, sampling, on_step)


def test_a_search_makes_only_the_batches_that_an_earlier_run_did_not_finish(tmp_path):
    cells = [Cell(window, image) for window in (None, LayerSet((0, 1), 16)) for image in range(3)]
    settings = search_settings(PLAN, "a model", GreyScorer())
    whole = Evaluation(CountingPainter(), GreyScorer(), PLAN, 2)(cells)
    with pytest.raises(KeyboardInterrupt):
        Evaluation(CountingPainter(4), GreyScorer(), PLAN, 2, journal=Journal.open(tmp_path, settings))(cells)
    engine = CountingPainter()
    again = Evaluation(engine, GreyScorer(), PLAN, 2, journal=Journal.open(tmp_path, settings))
    np.testing.assert_array_equal(again(cells), whole)
    assert engine.made == 2
    assert len(again.thumbnails) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": (0, 1)},
        {"attribute": Attribute.FACT},
        {"part": Part.KEYS},
        {"sampling": dataclasses.replace(SAMPLING, steps=5)},
    ],
)
def test_what_a_score_depends_on_is_a_setting(change):
    other = dataclasses.replace(PLAN, **change)
    assert search_settings(other, "a model", GreyScorer()) != search_settings(PLAN, "a model", GreyScorer())


def test_how_the_images_are_spent_is_no_setting():
    other = dataclasses.replace(PLAN, effort=Effort.PROBE, window_size=3)
    assert search_settings(other, "a model", GreyScorer()) == search_settings(PLAN, "a model", GreyScorer())
