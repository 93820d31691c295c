"""The comparison of edits: what methods are tuned on and measured on, and that each leaves the model as it was."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("diffusers")

from benchmarks import edit_methods
from benchmarks.edit import TASKS, TUNED_ON
from benchmarks.edit_bench import Bench, Task, bench_of, held_out_sheet, validation_sheet
from benchmarks.edit_methods import METHODS, applied, columns_of, edited, layers_of
from loco_core.diffusers_host.demo_model import DEMO
from loco_core.editing.recipe import Tokens
from loco_core.editing.solve import solve_edit
from loco_core.prompts import Attribute

TASK = Task(Attribute.STYLE, ("woodcut",))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of(DEMO)


def weights(bench: Bench) -> list[torch.Tensor]:
    return [weight.clone() for layer in bench.engine.layers.all for weight in bench.engine.key_value_weights(layer)]


@pytest.mark.parametrize("task", TASKS)
def test_what_methods_are_tuned_on_is_not_what_they_are_measured_on(task):
    validation, held_out = (
        {(picture.prompt, picture.seed) for own in make(task).pictures.values() for picture in own}
        for make in (validation_sheet, held_out_sheet)
    )
    assert not {prompt for prompt, _ in validation} & {prompt for prompt, _ in held_out}
    assert not {seed for _, seed in validation} & {seed for _, seed in held_out}
    assert {one for tasks in TUNED_ON.values() for one in tasks} <= set(TASKS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_edits_its_matrices_and_leaves_them_as_they_were(bench, name):
    method, before = METHODS[name], weights(bench)
    with edited(bench, method, TASK, method.published) as size:
        changed = [not torch.equal(own, now) for own, now in zip(before, weights(bench), strict=True)]
    assert sum(changed) == size.matrices and size.file_bytes > 0
    layers = layers_of(bench, TASK, method.published)
    assert {place // 2 for place, own in enumerate(changed) if own} == set(layers)
    assert all(torch.equal(own, now) for own, now in zip(before, weights(bench), strict=True))


def test_every_method_is_given_the_tokens_it_asks_for(bench):
    asked = METHODS["uce"].published
    last = columns_of(bench, TASK, asked)
    tail = columns_of(bench, TASK, {**asked, "tokens": Tokens.TAIL, "all_tokens": True})
    pairs = len(bench.recipe(TASK).pairs)
    assert last.originals.shape[1] == pairs < tail.originals.shape[1]
    assert last.preserved.shape[1] == len(bench.recipe(TASK).preserve) + 1 < tail.preserved.shape[1]  # the target too
    assert last.ridge({**asked, "relative": True}) != last.ridge(asked) == asked["ridge"]


def test_tuning_finds_the_best_setting_and_does_not_measure_to_the_end_what_cannot_be_it(monkeypatch):
    merits = {("a", 1): 0.5, ("b", 1): 0.9, ("b", 2): 0.95, ("a", 2): 0.2}
    now: dict = {}

    @contextmanager
    def edited(bench, method, task, params):
        now.update(params)
        yield

    class Measured:
        def now(self):
            return {"harmonic": merits[now["tokens"], now["ridge"]], "side": 0.1}

    monkeypatch.setattr(edit_methods, "edited", edited)
    choices = {"tokens": [{"tokens": "a"}, {"tokens": "b"}], "ridge": [{"ridge": 1}, {"ridge": 2}]}
    method = edit_methods.Method("made up", {"tokens": "a", "ridge": 1}, choices)
    best, seen = edit_methods.tuned(None, method, {task: Measured() for task in TASKS[:3]})
    assert best == {"tokens": "b", "ridge": 2}
    times = Counter((one["params"]["tokens"], int(one["params"]["ridge"])) for one in seen)
    assert times == {("a", 1): 3, ("b", 1): 3, ("b", 2): 3, ("a", 2): 1}


@pytest.mark.slow
def test_an_edit_is_measured_by_what_the_judge_sees_and_by_what_the_model_predicts(bench):
    measured = bench.measured(TASK, validation_sheet)
    untouched = measured.now()
    kept = ("kept_styles", "kept_objects", "kept_facts")
    assert (untouched["erased"], untouched["removed"], *(untouched[name] for name in kept)) == (0, 0, 1, 1, 1)
    with applied(bench, solve_edit(bench.encode, bench.recipe(TASK))):
        after = measured.now()
    assert after["erased"] == 1 and min(after[name] for name in kept) >= 0.9 and after["removed"] >= 0.9
