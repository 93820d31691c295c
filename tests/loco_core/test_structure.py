"""Rules that the code keeps: short signatures, names instead of numbers, who imports whom, files of a size to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_PARAMETERS, MOST_LINES = 6, 400
# Methods whose signature the host dictates.
HOSTS_OWN = {"EditAdapter.calculate_weight", "NeuronAdapter.calculate_weight", "PooledEdit.__call__", "_tell_rows"}
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}
# What nodes outside host/ may import of it: the schema, what a lazy workflow is stopped with, the lists of samplers.
FOR_NODES = {"comfy_api", "comfy_execution"}
LISTS = {"nodes/inputs/sampling.py": {"comfy.samplers"}}

FILES = sorted([*(ROOT / "loco_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below the node, by its name and that of its class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{owner}{child.name}", child
        yield from functions(child, f"{child.name}." if isinstance(child, ast.ClassDef) else owner)


def imported(path: Path) -> set[str]:
    """The modules that a file imports by their full names."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
    return found


@every_file
def test_no_function_has_more_parameters_than_a_reader_keeps_in_mind(path):
    for name, function in functions(tree(path)):
        own = function.args
        parameters = [
            one.arg for one in (*own.posonlyargs, *own.args, *own.kwonlyargs) if one.arg not in ("self", "cls")
        ]
        if function.name != "execute" and name not in HOSTS_OWN:
            assert len(parameters) <= MOST_PARAMETERS, f"{name}: {', '.join(parameters)}"


@every_file
def test_no_word_is_known_by_its_number_in_a_tuple(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
            numbered = isinstance(index, ast.Constant) and isinstance(index.value, int)
            assert not (numbered and re.fullmatch(r"[A-Z][A-Z_]+", name)), f"line {node.lineno}: {name}"


@every_file
def test_a_file_is_no_longer_than_one_reads_at_once(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@every_file
def test_the_method_knows_nothing_of_the_host_and_the_nodes_little(path):
    name, inside = path.relative_to(ROOT).as_posix(), path.relative_to(ROOT).parts
    if inside[:2] == ("nodes", "host"):
        return
    allowed = set() if inside[0] == "loco_core" else FOR_NODES
    of_host = {module for module in imported(path) if module.partition(".")[0] in HOST}
    assert not {module for module in of_host - LISTS.get(name, set()) if module.partition(".")[0] not in allowed}


@every_file
def test_relative_imports_of_the_method_stay_in_it(path):
    depth = len(path.relative_to(ROOT).parts) - 1
    if path.is_relative_to(ROOT / "loco_core"):
        levels = [node.level for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
        assert max(levels, default=0) <= depth
