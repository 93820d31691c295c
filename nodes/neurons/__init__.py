"""Nodes that detect neurons, ablate them, and keep and export them."""
