"""The embedded world: a known causal model, drawn as pictures."""
