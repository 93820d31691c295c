"""Single neurons: which of them carry a style, and what is left without them (paper, section 7)."""
