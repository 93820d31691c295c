"""Telling values apart by all that they hold, whatever they are: numbers, arrays, containers, functions, objects.

    contents_digest([1, {"a": torch.zeros(3)}, lambda x: x + 1])   # 16 hexadecimal digits

Equal values have the same digest in every process: it contains no address and no order that a process chooses by lot.
"""

from __future__ import annotations

import _thread
import copyreg
import functools
import hashlib
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from typing import Any

import numpy as np
import torch

# Types whose values their `repr` tells in full.
PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)
# Types whose values hold nothing on which a result could depend.
EMPTY = (_thread.LockType, _thread.RLock)
# Types all of whose contents are told without their attributes.
SEEN_THROUGH = (Mapping, Set, list, tuple, deque, bytearray, memoryview, int, float, complex, str, bytes) + (
    types.MethodType,
    functools.partial,
    weakref.ref,
)
# Functions, and what becomes of one in a class.
METHODS = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property)
# What a class holds for all its objects; of other objects there only the methods count.
CONSTANTS = (*PLAIN, list, tuple, dict, set, frozenset, deque, bytearray, torch.Tensor, np.ndarray, np.generic)
BUILTINS = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType)

# By its id, a value that was met already, which this keeps alive, and its digest.
Met = dict[int, tuple[object, str]]


def contents_digest(value: object, known: Iterable[object] = ()) -> str:
    """16 hexadecimal digits. Of the objects in `known` only the class's name counts: they are told apart otherwise.

    Functions count by their code, their defaults and what they enclose; objects by their class, its methods and
    constants, and their attributes. What it cannot see the inside of, it takes for another value in every process,
    rather than for the same.
    """
    return _digest(value, {id(one): (one, type(one).__qualname__) for one in known})[:16]


def _digest(value: object, met: Met) -> str:
    if type(value) in PLAIN:
        return _hashed([type(value).__qualname__, repr(value)])
    if id(value) not in met:
        met[id(value)] = value, type(value).__qualname__  # where it holds itself
        try:
            told = _hashed([_digest(part, met) for part in _parts(value, met)])
        except RecursionError:  # too deep to be seen
            told = _hashed([str(id(value))])
        met[id(value)] = value, told
    return met[id(value)][1]


def _hashed(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


def _parts(value: Any, met: Met) -> Iterator[object]:
    """What makes a value of no plain type what it is; the first part tells its kind."""
    if isinstance(value, torch.Tensor):
        yield from _tensor_parts(value)
    elif isinstance(value, torch.nn.Module) and hasattr(value, "_orig_mod"):
        yield from ("compiled", value._orig_mod)  # the rest, which torch.compile keeps, changes as it runs
    elif isinstance(value, (np.ndarray, np.generic)):
        yield from _array_parts(np.asarray(value))
        yield getattr(value, "__dict__", None)  # as a masked array's mask
    elif isinstance(value, type):
        yield from (value.__qualname__, *_class_parts(value))
    elif isinstance(value, types.ModuleType):
        yield from ("module", value.__name__)
    elif isinstance(value, types.CodeType):
        yield from _code_parts(value)
    elif isinstance(value, types.FunctionType):
        yield from (value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, vars(value))
        yield [_enclosed(cell) for cell in value.__closure__ or ()]
    elif isinstance(value, BUILTINS):
        yield from (value.__qualname__, getattr(value, "__self__", None))
    else:
        yield type(value)
        yield from _object_parts(value, met)


def _object_parts(value: Any, met: Met) -> Iterator[object]:
    """What an object holds, whose class is told already."""
    if isinstance(value, EMPTY):
        return
    if isinstance(value, Enum):
        yield value.name
        return
    if isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, Mapping):
        yield sorted((_digest(key, met), _digest(value[key], met)) for key in value)
        yield getattr(value, "default_factory", None)
    elif isinstance(value, Set):
        yield sorted(_digest(member, met) for member in value)
    elif isinstance(value, (list, tuple, deque)):
        yield from value
    elif isinstance(value, (bytearray, memoryview)):
        yield bytes(value)
    else:
        for kind in (bool, int, float, complex, str, bytes):
            if isinstance(value, kind):
                yield kind.__repr__(value)
    attributes = _attributes(value)
    if attributes:
        yield attributes
    elif not isinstance(value, SEEN_THROUGH):
        yield _pickled(value)


def _attributes(value: object) -> dict[str, object]:
    """An object's attributes, those in slots too."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        for name, member in vars(kind).items() if "__slots__" in vars(kind) else ():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    found[f"{kind.__qualname__}.{name}"] = member.__get__(value)
                except AttributeError:  # a slot that holds nothing
                    continue
    return found


def _pickled(value: object) -> object:
    """What `pickle` would write of an object without attributes; of what it cannot write, the address."""
    reduce: Callable[[Any], Any] = copyreg.dispatch_table.get(type(value), _reduced)
    try:
        told = reduce(value)
    except Exception:  # whatever a foreign class makes of it
        return f"{value!r} {id(value)}"
    return told if isinstance(told, str) else [list(part) if isinstance(part, Iterator) else part for part in told]


def _reduced(value: object) -> Any:
    return value.__reduce_ex__(4)


def _class_parts(kind: type) -> Iterator[object]:
    """A class's methods and its constants, and those of its bases."""
    for base in kind.__mro__:
        yield base.__qualname__
        if base.__module__.partition(".")[0] == "torch":  # which changes its own classes when it compiles
            continue
        for name, member in sorted(vars(base).items()):
            if isinstance(member, METHODS) or hasattr(member, "__wrapped__"):
                yield from (name, *_functions(member))
            elif isinstance(member, CONSTANTS) and not name.startswith("__"):
                yield from (name, member)


def _functions(member: Any) -> Iterator[object]:
    """The functions of which a member of a class is made."""
    if isinstance(member, property):
        yield from (member.fget, member.fset, member.fdel)
    elif isinstance(member, functools.cached_property):
        yield member.func
    else:
        yield getattr(member, "__func__", member)


def _code_parts(code: types.CodeType) -> Iterator[object]:
    """What code does, wherever it stands in its file."""
    yield from (code.co_name, code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    yield getattr(code, "co_exceptiontable", b"")  # since Python 3.11


def _enclosed(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _tensor_parts(tensor: torch.Tensor) -> Iterator[object]:
    """Those of a tensor on any device, a parameter or not; of one in several tensors, as quantised ones are."""
    yield from ("tensor", str(tensor.dtype), tuple(tensor.shape))
    if hasattr(tensor, "__tensor_flatten__"):
        names, context = tensor.__tensor_flatten__()
        yield from ([getattr(tensor, name) for name in names], context)
    elif not tensor.is_meta:
        flat = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
        numbers = flat.resolve_conj().resolve_neg().cpu().contiguous().view(-1)
        yield hashlib.sha256(numbers.view(torch.uint8).numpy().data).hexdigest()


def _array_parts(array: np.ndarray) -> Iterator[object]:
    yield from ("array", array.dtype.str, array.shape)
    if array.dtype.hasobject:
        yield array.tolist()
    else:
        yield str(array.dtype)  # the names of fields
        yield hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
