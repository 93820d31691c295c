"""The command line: `python -m loco_core`."""
