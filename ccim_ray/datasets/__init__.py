"""Datasets: one record, one file for each dataset."""
