"""What may be asked of a model: its engine, its text layers, its family."""
