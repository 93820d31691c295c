"""The same prompts and seeds before and after a change of the model, in images."""
