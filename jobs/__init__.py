"""One thin script a question; `python -m ccim_ray` lists them and runs them by name."""
