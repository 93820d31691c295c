"""The method from a terminal, on diffusers.

python -m loco_core trace --concept woodcut --target "a painting"                 # finds the layers
python -m loco_core edit --concept woodcut --target "a painting"                  # finds and edits them
python -m loco_core inject --prompt "a red boat" --other "a fish" --layers 8-9    # gives them another prompt
python -m loco_core neurons --help                                                # detects and ablates neurons
python -m loco_core paper --model FOLDER                                          # repeats the paper's table
"""

from __future__ import annotations

from importlib import import_module

import click

# What each command does. Its module is read when it is asked for: PyTorch and diffusers take seconds.
COMMANDS = {
    "trace": "Find the layers of a style, an object or a fact.",
    "edit": "Edit the layers: a LoRA, and images before and after.",
    "report": "Score images of the model and of the edited model.",
    "inject": "Give some layers another prompt.",
    "neurons": "Find the neurons of a style, ablate them, see how many are enough.",
    "paper": "Repeat the paper's table on your model.",
}


class Commands(click.Group):
    """Commands that are known by name, and read when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f".{cmd_name}", __package__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands)
def app() -> None:
    """Find the text layers that hold a style, an object or a fact, and edit exactly those."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0; 2 with one sentence for a user's mistake; 130 for Ctrl-C, with what was finished on disk."""
    try:
        return app(arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        return _stopped(error.format_message(), 2)
    except (ValueError, OSError) as error:
        return _stopped(str(error), 2)
    except (click.Abort, KeyboardInterrupt):
        return _stopped("stopped; what was finished is in the output folder", 130)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not read for a help text
            raise
        return _stopped("out of memory; give fewer --rows, or a smaller --size", 2)


def _stopped(reason: str, code: int) -> int:
    click.echo(f"loco_core: {reason}", err=True)
    return code
