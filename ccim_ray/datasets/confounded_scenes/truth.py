"""What only the causal model knows of each picture, as a table."""

from __future__ import annotations

import pyarrow as pa

BOX = pa.list_(pa.float64(), 4)
TRUTH_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("scene", pa.string(), nullable=False),
        pa.field("emotion", pa.string(), nullable=False),
        pa.field("ambiguous", pa.bool_(), nullable=False),
        pa.field("oracle_observational", pa.list_(pa.float64()), nullable=False),
        pa.field("oracle_do", pa.list_(pa.float64()), nullable=False),
        pa.field("oracle_subject", pa.list_(pa.float64()), nullable=False),
        pa.field("face_box", BOX, nullable=False),
        pa.field("keypoints", pa.list_(pa.list_(pa.float64(), 2)), nullable=False),
        pa.field("other_boxes", pa.list_(BOX), nullable=False),
        pa.field("depth", pa.string(), nullable=False),
    ]
)
"""Columns of truth.parquet: what only the causal model knows, and what perception would have to find.

``emotion`` is the true one, whatever was annotated. Probabilities are in the dataset's order of categories.
Boxes and keypoints are in pixels as in ``Subject``; ``depth`` is a path relative to the root.
"""
