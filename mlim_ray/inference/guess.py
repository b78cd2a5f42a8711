"""What a hidden word may be."""

from typing import NamedTuple


class WordGuess(NamedTuple):
    """A word that the model proposes."""

    word: str
    probability: float
    """the model's own, over its whole vocabulary"""
