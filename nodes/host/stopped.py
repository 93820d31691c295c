"""Work that ends early says so on the node itself: what the host shows of an error stands behind a button."""

from __future__ import annotations

import functools
from typing import Any

import comfy.model_management
from comfy_api.latest import io

from .progress import begin, executing_node, place, show_text


def told_when_stopped(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, which now shows why it stopped: the sentence of a mistake, or how far it was when it was cancelled."""
    run = node.execute.__func__

    @functools.wraps(run)
    def execute(cls: type[io.ComfyNode], *args: Any, **inputs: Any) -> io.NodeOutput:
        node_id = executing_node()
        begin(node_id)
        try:
            return run(cls, *args, **inputs)
        except ValueError as error:
            show_text(f"Stopped. {error}", node_id)
            raise
        except comfy.model_management.InterruptProcessingException:
            show_text(f"Stopped at {place(node_id)}.", node_id)
            raise

    node.execute = classmethod(execute)
    return node
