"""The adapter to ComfyUI: everything that touches a model, a CLIP, a VAE, a sampler or a folder."""
