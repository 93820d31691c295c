"""Nodes that find, choose and load layers."""
