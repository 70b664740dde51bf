"""Pre-trained parts: backbones and their weights."""
