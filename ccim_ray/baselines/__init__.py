"""Baselines: each maps a batch to the joint feature h."""
