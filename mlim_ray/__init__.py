"""MLIM pre-training (arXiv 2109.12178) on image-text catalogues: hidden words, hidden cells, one transformer."""
