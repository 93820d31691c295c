"""Mechanistic knowledge localization for text-to-image models (Basu et al., ICML 2024, arXiv 2405.01008).

LocoGen finds the window of cross-attention layers that carries a style, an object or a fact: `search`.
LocoEdit edits the K and V weights of the layers found, in closed form: `edit`.
Both are written against the `Engine` protocol and know nothing of the program that runs the model.
"""
