"""Nodes that edit layers, and keep, combine and export edits."""
