"""LocoGen: which layers carry a style, an object or a fact (paper, section 5)."""
