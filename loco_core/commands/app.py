"""The method from a terminal, on diffusers.

python -m loco_core trace --concept woodcut --target "a painting"                 # finds the layers
python -m loco_core edit --concept woodcut --target "a painting" --layers 8-9     # edits them
python -m loco_core neurons --help                                                # detects and ablates neurons
python -m loco_core paper --model FOLDER                                          # repeats the paper's table
"""

from __future__ import annotations

import click
import torch

from .edit import edit
from .neurons import neurons
from .paper import paper
from .trace import trace


@click.group()
def app() -> None:
    """Find the text layers that hold a style, an object or a fact, and edit exactly those."""


app.add_command(trace)
app.add_command(edit)
app.add_command(neurons)
app.add_command(paper)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0; 2 with one sentence for a user's mistake; 130 for Ctrl-C, with what was finished on disk."""
    try:
        return app(arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        return _stopped(error.format_message(), 2)
    except (ValueError, OSError) as error:
        return _stopped(str(error), 2)
    except torch.cuda.OutOfMemoryError:
        return _stopped("out of memory; give fewer --rows, or a smaller --size", 2)
    except (click.Abort, KeyboardInterrupt):
        return _stopped("stopped; what was finished is in the output folder", 130)


def _stopped(reason: str, code: int) -> int:
    click.echo(f"loco_core: {reason}", err=True)
    return code
