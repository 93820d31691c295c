"""How diffusers' models are read, one file for each family."""
