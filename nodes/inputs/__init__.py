"""Inputs and outputs that several nodes share."""
