"""How ComfyUI's models are read and patched, one file for each family."""
