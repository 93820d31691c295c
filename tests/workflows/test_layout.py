"""The graphs of workflows/ as they lie on the canvas: neat, and titled in the order in which they are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
# Height of a node's title, which stands above its position.
TITLE = 30
# Between two nodes, at least.
GAP = 20
# More does not fit into a window of 1600 x 900 at a zoom at which titles and values can be read.
WIDTH, HEIGHT = 1950, 1080


@dataclass(frozen=True)
class Box:
    """A rectangle of the canvas, in its units; y grows downwards."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def contains(self, other: Box) -> bool:
        sides = (self.left <= other.left, self.top <= other.top, other.right <= self.right, other.bottom <= self.bottom)
        return all(sides)

    def overlaps(self, other: Box, gap: float = 0) -> bool:
        beside = self.left >= other.right + gap or other.left >= self.right + gap
        return not beside and self.top < other.bottom + gap and other.top < self.bottom + gap


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict:
    return json.loads(request.param.read_text(encoding="utf-8"))


def node_boxes(workflow: dict) -> dict[int, Box]:
    """By node id, with the title."""
    boxes = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        boxes[node["id"]] = Box(node.get("title", node["type"]), left, top - TITLE, left + width, top + height)
    return boxes


def group_boxes(workflow: dict) -> list[Box]:
    boxes = []
    for group in workflow["groups"]:
        left, top, width, height = group["bounding"]
        boxes.append(Box(group["title"], left, top, left + width, top + height))
    return boxes


def the_note(workflow: dict) -> dict:
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    return note


def test_no_node_lies_on_another_or_close_to_it(workflow):
    pairs = combinations(node_boxes(workflow).values(), 2)
    assert [(one.name, other.name) for one, other in pairs if one.overlaps(other, GAP)] == []


def test_every_node_but_the_note_lies_in_one_group(workflow):
    boxes, groups = node_boxes(workflow), group_boxes(workflow)
    note = boxes.pop(the_note(workflow)["id"])
    assert [group.name for group in groups if group.overlaps(note)] == []
    for box in boxes.values():
        (around,) = (group for group in groups if group.overlaps(box))
        assert around.contains(box), box.name


def test_groups_are_titled_and_numbered_from_left_to_right(workflow):
    groups = group_boxes(workflow)
    assert all(group.name.startswith(f"{number}  ") and group.name[3:] for number, group in enumerate(groups, 1))
    assert all(one.right <= other.left for one, other in zip(groups, groups[1:], strict=False))


def test_the_graph_is_small_enough_to_be_read_as_a_whole(workflow):
    boxes = [*node_boxes(workflow).values(), *group_boxes(workflow)]
    assert max(box.right for box in boxes) - min(box.left for box in boxes) <= WIDTH
    assert max(box.bottom for box in boxes) - min(box.top for box in boxes) <= HEIGHT


def test_links_lead_to_the_right_or_down_the_same_column(workflow):
    boxes = node_boxes(workflow)
    for _, origin, _, target, _, _ in workflow["links"]:
        one, other = boxes[origin], boxes[target]
        down = one.left == other.left and one.bottom <= other.top
        assert down or one.right <= other.left, (one.name, other.name)


def test_a_note_says_what_to_change(workflow):
    note = the_note(workflow)
    (text,) = note["widgets_values"]
    assert note["title"] == "Read me"
    assert text.startswith("# ")
    assert len(re.findall(r"[^\W\d_][\w'-]*", text)) <= 40
    assert any(words in text for words in ("**Change", "**Your own model:**"))
