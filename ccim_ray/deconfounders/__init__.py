"""Ways to take the context's confounding out of a baseline: a file each, and the cards that describe them."""
