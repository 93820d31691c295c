"""LocoEdit: layers edited in closed form (paper, section 6)."""
