"""The node that gives chosen layers another prompt."""
