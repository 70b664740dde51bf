"""A baseline and a dataset for ccim_ray from outside of it."""
