"""What the models of a family have in common, one file for each family."""
