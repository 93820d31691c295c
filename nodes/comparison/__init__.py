"""Nodes that score images, and compare those before and after an edit."""
