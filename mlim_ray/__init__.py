"""MLIM pre-training (arXiv 2109.12178) on image-text catalogues: masked words, masked cells, one transformer."""
