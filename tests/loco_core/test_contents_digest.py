"""Values told apart by what they hold: all of it, the same in every process."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict, deque
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loco_core.contents_digest import contents_digest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def function(source: str, name: str = "act"):
    """The function of that name in a module with this source."""
    module: dict = {"functools": functools}
    exec(source, module)  # noqa: S102 - the source stands in the test
    return module[name]


def changed(values, place: int):
    """A copy of which one value is another."""
    copy = values.clone() if isinstance(values, torch.Tensor) else values.copy()
    copy[place] = 7
    return copy


class Slots:
    __slots__ = ("__hidden", "shown", "unset")

    def __init__(self, hidden: object, shown: object) -> None:
        self.__hidden, self.shown = hidden, shown


class Inherited(Slots):
    """Slots of its own, and a dictionary."""

    def __init__(self, hidden: object, own: object) -> None:
        super().__init__(hidden, 0)
        self.own = own


def slots_and_more(value: object) -> Inherited:
    return Inherited(value, 0)


def enclosing(value: object):
    return lambda x: (x, value)


def compiled(weight: float) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.constant_(module.weight, weight)
    return torch.compile(module, backend="eager")


def of_class_enclosing(value: object) -> object:
    class Kind:
        def __call__(self, x: object) -> object:
            return x, value

    return Kind()


def of_class_that_knows_itself(value: object) -> object:
    class Kind:
        def __repr__(self) -> str:
            return super().__repr__() + str((value, Kind))

    Kind.kinds = [Kind]
    return Kind()


def of_class(source: str) -> object:
    return function(source, "Kind")()


ARRAY, LONG = np.zeros(5000), np.zeros((100, 100), dtype=np.int16)
TENSOR, HALF = torch.zeros(5000), torch.zeros(5000, dtype=torch.bfloat16)
BODY = "def act(x):\n    return x {}"
# Two makers each: what they make differs.
DIFFERENT = {
    "a value of a long array": (lambda: ARRAY, lambda: changed(ARRAY, 2500)),
    "the last value of an array": (lambda: LONG, lambda: changed(LONG, (99, 99))),
    "an array's shape": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2))),
    "an array's type": (lambda: np.zeros(4, np.int32), lambda: np.zeros(4, np.float32)),
    "an array of objects": (lambda: np.array([1, "a"], object), lambda: np.array([1, "b"], object)),
    "a masked array's mask": (lambda: np.ma.array([1, 2], mask=[0, 1]), lambda: np.ma.array([1, 2], mask=[1, 0])),
    "a numpy number": (lambda: np.float32(0.1), lambda: np.float32(0.2)),
    "a numpy number's type": (lambda: np.float32(1), lambda: np.float64(1)),
    "a value of a long tensor": (lambda: TENSOR, lambda: changed(TENSOR, 2501)),
    "a value of a tensor in half precision": (lambda: HALF, lambda: changed(HALF, 4999)),
    "a value far inside a list": (lambda: [0] * 5000, lambda: changed([0] * 5000, 2500)),
    "a value far inside a dictionary": (
        lambda: {i: [i] for i in range(3000)},
        lambda: {i: [i] for i in range(3000)} | {1500: [0]},
    ),
    "a member of a set": (lambda: set(map(str, range(2000))), lambda: {*map(str, range(1999)), "x"}),
    "a member of a deque": (lambda: deque(range(2000)), lambda: deque([*range(1999), 0])),
    "bytes": (lambda: bytearray(5000), lambda: bytearray(4999) + b"1"),
    "a number's type": (lambda: 1, lambda: True),
    "a function's body": (lambda: function(BODY.format("+ 1")), lambda: function(BODY.format("+ 2"))),
    "a function's operation": (lambda: function(BODY.format("+ 1")), lambda: function(BODY.format("- 1"))),
    "a function that is called": (
        lambda: function("def act(x):\n    return abs(x)"),
        lambda: function("def act(x):\n    return len(x)"),
    ),
    "a function inside a function": (
        lambda: function("def act(x):\n    return list(map(lambda y: y + 1, x))"),
        lambda: function("def act(x):\n    return list(map(lambda y: y + 2, x))"),
    ),
    "a lambda": (lambda: lambda x: x, lambda: lambda x: -x),
    "what a function encloses": (lambda: enclosing(1), lambda: enclosing(2)),
    "a default": (lambda: function("def act(x=1): pass"), lambda: function("def act(x=2): pass")),
    "a keyword's default": (lambda: function("def act(*, x=1): pass"), lambda: function("def act(*, x=2): pass")),
    "what a partial is given": (lambda: functools.partial(max, 1), lambda: functools.partial(max, 2)),
    "a partial's keyword": (lambda: functools.partial(max, key=len), lambda: functools.partial(max, key=abs)),
    "the function of a partial": (
        lambda: functools.partial(function(BODY.format("+ 1")), 1),
        lambda: functools.partial(function(BODY.format("+ 2")), 1),
    ),
    "whose method it is": (lambda: [1].index, lambda: [2].index),
    "a slot": (lambda: Slots(1, 2), lambda: Slots(1, 3)),
    "a private slot": (lambda: Slots(1, 2), lambda: Slots(2, 2)),
    "an inherited slot": (lambda: slots_and_more(1), lambda: slots_and_more(2)),
    "an attribute": (lambda: SimpleNamespace(a=[1]), lambda: SimpleNamespace(a=[2])),
    "a method's body": (
        lambda: of_class("class Kind:\n def act(self): return 1"),
        lambda: of_class("class Kind:\n def act(self): return 2"),
    ),
    "a decorated method's body": (
        lambda: of_class("class Kind:\n @functools.lru_cache\n def act(self): return 1"),
        lambda: of_class("class Kind:\n @functools.lru_cache\n def act(self): return 2"),
    ),
    "what a method encloses": (lambda: of_class_enclosing(1), lambda: of_class_enclosing(2)),
    "what a method of a class that knows itself encloses": (
        lambda: of_class_that_knows_itself(1),
        lambda: of_class_that_knows_itself(2),
    ),
    "a method's default": (
        lambda: of_class("class Kind:\n def act(self, x=1): pass"),
        lambda: of_class("class Kind:\n def act(self, x=2): pass"),
    ),
    "a property's default": (
        lambda: of_class("class Kind:\n @property\n def act(self, x=1): return x"),
        lambda: of_class("class Kind:\n @property\n def act(self, x=2): return x"),
    ),
    "a class's constant": (lambda: of_class("class Kind: scale = 1"), lambda: of_class("class Kind: scale = 2")),
    "a class's list": (lambda: of_class("class Kind: K = [1]"), lambda: of_class("class Kind: K = [2]")),
    "a class's dictionary": (lambda: of_class("class Kind: K = {1: 2}"), lambda: of_class("class Kind: K = {1: 3}")),
    "what a weak reference leads to": (lambda: weakref.ref(enclosing), lambda: weakref.ref(function)),
    "a module's parameter": (lambda: torch.nn.Parameter(TENSOR), lambda: torch.nn.Parameter(changed(TENSOR, 1))),
    "what was compiled": (lambda: compiled(1.0), lambda: compiled(2.0)),
    "a slice": (lambda: slice(1, 2), lambda: slice(1, 3)),
    "an object without attributes": (lambda: re.compile("a"), lambda: re.compile("b")),
    "a date": (lambda: date(2026, 1, 2), lambda: date(2026, 1, 3)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_values_differ_by(what):
    one, other = DIFFERENT[what]
    assert contents_digest(one()) != contents_digest(other())


@pytest.mark.parametrize("what", DIFFERENT)
def test_values_made_alike_are_equal_in(what):
    for make in DIFFERENT[what]:
        assert contents_digest([make()]) == contents_digest([make()])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
        (torch.zeros(4, 3), torch.zeros(3, 4).T),
        (torch.nn.Parameter(torch.ones(2)), torch.ones(2)),
        (np.ones((4, 3)), np.ones((3, 4)).T),
        (threading.Lock(), threading.Lock()),
        (object(), object()),
        (function("def act(x): return x"), function("\n\n\ndef act(x): return x")),
    ],
    ids=["order", "ordered", "layout", "parameter", "array", "lock", "object", "place in its file"],
)
def test_what_changes_no_result_changes_no_digest(one, other):
    assert contents_digest(one) == contents_digest(other)


def test_a_value_that_holds_itself_has_a_digest():
    def ring(value: int) -> list:
        ring: list = [value]
        ring.append({"again": ring})
        return ring

    assert contents_digest(ring(1)) == contents_digest(ring(1)) != contents_digest(ring(2))


def test_what_lies_too_deep_to_be_seen_is_another_value():
    def nested() -> list:
        value: list = []
        for _ in range(100_000):
            value = [value]
        return value

    one, other = nested(), nested()
    try:
        assert contents_digest(one) != contents_digest(other)
    finally:
        for value in (one, other):  # freed level by level
            while value:
                value = value.pop()


def test_of_what_is_known_only_the_class_counts():
    modules = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Conv2d(2, 2, 1)]
    digests = [contents_digest([module], [module]) for module in modules]
    assert digests[0] == digests[1] != digests[2]


def test_a_compiled_module_that_has_been_called_has_the_digest_of_one_that_has_not():
    torch.compiler.reset()
    called = compiled(1.0)
    called(torch.zeros(1, 2))
    assert contents_digest(called) == contents_digest(compiled(1.0)) != contents_digest(called._orig_mod)


def test_a_compiled_module_is_seen_through_to_what_is_known():
    one, other = compiled(1.0), compiled(2.0)
    assert contents_digest(one, [one._orig_mod]) == contents_digest(other, [other._orig_mod])


@pytest.mark.slow
def test_a_module_of_another_class_has_the_same_digest_after_torch_has_compiled():
    """As torch compiles, it changes its own class of all modules."""
    code = (
        "import torch; from loco_core.contents_digest import contents_digest; "
        "module = type('Mine', (torch.nn.Module,), {})(); before = contents_digest(module); "
        "torch.compile(torch.nn.Identity(), backend='eager')(torch.zeros(1)); "
        "print(contents_digest(module) == before)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"


def test_what_cannot_be_seen_through_is_another_value():
    one, other = ((number for number in range(3)) for _ in range(2))
    assert contents_digest(one) == contents_digest(one) != contents_digest(other)


def digests() -> dict[str, list[str]]:
    return {what: [contents_digest(make()) for make in makers] for what, makers in DIFFERENT.items()}


@pytest.mark.slow
def test_digests_are_the_same_in_every_process():
    """Another process chooses other addresses and, by its seed of hashes, another order of sets."""
    code = "import json, test_contents_digest; print(json.dumps(test_contents_digest.digests()))"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == digests()
