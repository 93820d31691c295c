"""How well images fit a text, and how sure a mean of scores is."""
