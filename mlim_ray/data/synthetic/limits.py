"""Proven lower bounds of what the partner probe measures on the generated catalogue.

They hold in expectation over the catalogue: on finitely many records a lucky guess may lie below by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlim_ray.data.synthetic.attributes import ATTRIBUTES, draw_attributes
from mlim_ray.data.synthetic.counter import Stream
from mlim_ray.data.synthetic.pictures import draw_pose, noise_free_pictures, noise_variance
from mlim_ray.data.synthetic.titles import TEMPLATES, read_title, slot_attribute

BATCH_LEVELS = 512 * 32 * 32


def word_entropies(text: str) -> NDArray[np.float64]:
    """Entropy in nats of each word of a generated title, float64 [num_words], given all that can be known.

    Given are the shown attributes, the template and all other words. Proof: brand and size are drawn
    uniformly, independently of everything else, and named at most once, so nothing else tells of them; the
    wording of a shown value is one more uniform, independent draw; the template fixes every other word. Each
    entropy is that of a uniform law, so an oracle's negative log-likelihood equals it at every draw. A model
    sees no more than is given here, hence has no lower expectation. Raises ValueError for a text that no
    template makes.
    """
    return np.array([math.log(len(words)) for words in _candidates(text)], dtype=np.float64)


def mlm_limit(
    texts: Sequence[str],
    hidden_words: Sequence[NDArray[np.bool_]],
    num_pieces: Sequence[NDArray[np.integer]],
) -> float:
    """Lower bound of the MLM loss: nats per hidden piece, over all hidden pieces of all titles.

    For each title `hidden_words` says which words are hidden (bool [num_words]) and `num_pieces` into how
    many WordPieces each falls (int [num_words]). Proof: the words of a title are independent given what
    `word_entropies` takes as given, and the pieces' predicted laws multiply to a law of the word, so the
    losses of a word's pieces sum to at least its entropy in expectation. The number of `[MASK]` pieces can
    tell how many pieces a word has, so a wording that some title in `texts` shows to have another number is
    ruled out; pass enough titles that each wording occurs, as a few hundred do. Raises ValueError if shapes
    disagree, if a word falls into different numbers of pieces, or if nothing is hidden.
    """
    if not len(texts) == len(hidden_words) == len(num_pieces):
        raise ValueError(
            f"{len(texts)} titles, {len(hidden_words)} rows of hidden words and {len(num_pieces)} rows of "
            f"piece counts given, equally many expected: pass one row of each per title"
        )
    titles = [_candidates(text) for text in texts]
    pieces_of_word: dict[str, int] = {}
    for text, hidden, pieces in zip(texts, hidden_words, num_pieces, strict=True):
        words = text.split()
        if not len(words) == len(hidden) == len(pieces):
            raise ValueError(
                f"title {text!r} has {len(words)} words, {len(hidden)} hidden flags and {len(pieces)} piece "
                f"counts given: pass one of each per word"
            )
        for word, count in zip(words, pieces.tolist(), strict=True):
            if pieces_of_word.setdefault(word, count) != count or count < 1:
                raise ValueError(
                    f"{count} pieces of the word {word!r} given, {max(1, pieces_of_word[word])} expected: "
                    f"count the pieces of whole, uncut titles"
                )
    nats, total_pieces = 0.0, 0
    for candidates, hidden, pieces in zip(titles, hidden_words, num_pieces, strict=True):
        for place in np.flatnonzero(hidden):
            count = int(pieces[place])
            nats += math.log(sum(pieces_of_word.get(word, count) == count for word in candidates[place]))
            total_pieces += count
    if total_pieces == 0:
        raise ValueError("no hidden word given, at least one expected: the mean over no pieces is undefined")
    return nats / total_pieces


def recon_limit(hidden_cell_ratio: float) -> float:
    """Lower bound of RECON when title and visible cells are seen: summed over channels, mean over all pixels.

    Pixel values lie in [0, 1]; `hidden_cell_ratio` is the share of cells hidden. Proof: a level is a whole
    number that product and pose determine plus independent whole-numbered noise of known variance (rounding
    is inside that variance, and nothing is clipped), so no prediction of a hidden level from anything else
    has a lower expected squared error than that variance. Visible cells can be copied and count 0. It holds
    for pictures kept at the size they were generated with. Raises ValueError for a ratio outside [0, 1].
    """
    if not 0.0 <= hidden_cell_ratio <= 1.0:
        raise ValueError(f"hidden_cell_ratio {hidden_cell_ratio} given, 0 to 1 expected: pass hidden / all cells")
    return 3 * noise_variance() * hidden_cell_ratio


def recon_title_limit(texts: Sequence[str], *, num_draws: int, seed: int, image_size: int = 32) -> tuple[float, float]:
    """Lower bound of RECON with all cells hidden: E Var(picture | title), and its Monte Carlo standard error.

    Summed over channels, mean over pixels and over `texts`, pixel values in [0, 1]. Proof: among all
    functions of the title the posterior mean has the least expected squared error, namely
    Var(picture | title). Priors are independent and uniform, so the posterior keeps the attributes that the
    title names, and leaves the others, pose and background at their priors: `num_draws` noise-free pictures
    per title are drawn from it, their unbiased sample variance is taken and the exact noise variance added.
    The standard error is the jackknife's, for these titles. Raises ValueError for fewer than three draws or
    for no titles.
    """
    if num_draws < 3 or not texts:
        raise ValueError(
            f"{num_draws} draws for {len(texts)} titles given, at least three draws for at least one title "
            f"expected: ask for more"
        )
    step = max(1, BATCH_LEVELS // (num_draws * image_size**2))
    variances: list[NDArray[np.float64]] = []
    squared_errors: list[NDArray[np.float64]] = []
    for first in range(0, len(texts), step):
        pictures = _draw_posterior(texts[first : first + step], first, num_draws, seed, image_size)
        distances = _squared_distances(pictures)
        spread = np.sum((distances - distances.mean(axis=1, keepdims=True)) ** 2, axis=1)
        variances.append(distances.sum(axis=1) / (num_draws - 1))
        squared_errors.append(spread * num_draws / ((num_draws - 1) * (num_draws - 2) ** 2))
    limit = float(np.concatenate(variances).mean()) + 3 * noise_variance()
    return limit, math.sqrt(float(np.concatenate(squared_errors).sum())) / len(texts)


def _candidates(text: str) -> list[tuple[str, ...]]:
    """For each word of a title, the equally probable words that could stand in its place."""
    title = read_title(text)
    candidates: list[tuple[str, ...]] = []
    for slot, word in zip(TEMPLATES[title.template], title.words, strict=True):
        name = slot_attribute(slot)
        if name is None:
            candidates.append((word,))
        elif ATTRIBUTES[name].is_shown:
            candidates.append(ATTRIBUTES[name].wordings[title.values[name]])
        else:
            candidates.append(ATTRIBUTES[name].names)
    return candidates


def _draw_posterior(texts: Sequence[str], first: int, num_draws: int, seed: int, image_size: int) -> NDArray[np.uint8]:
    """Noise-free pictures given each title, uint8 [num_titles, num_draws, size, size, 3].

    `first` is the number of the first title among all, which its draws depend on.
    """
    index = np.arange(first * num_draws, (first + len(texts)) * num_draws, dtype=np.int64)
    values = draw_attributes(index, seed, Stream.LIMIT_PRODUCT)
    for row, text in enumerate(texts):
        for name, value in read_title(text).values.items():
            values[name][row * num_draws : (row + 1) * num_draws] = value
    pictures = noise_free_pictures(values, draw_pose(index, seed, Stream.LIMIT_POSE), image_size)
    return pictures.reshape(len(texts), num_draws, image_size, image_size, 3)


def _squared_distances(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Squared distance of each picture from its title's mean, float64 [num_titles, num_draws].

    Summed over channels, mean over pixels.
    """
    levels = pictures.astype(np.float32) / np.float32(255)
    levels -= levels.mean(axis=1, keepdims=True)
    num_pixels = levels.shape[2] * levels.shape[3]
    distances = np.einsum("tdijc,tdijc->td", levels, levels, dtype=np.float64)
    return np.asarray(distances / num_pixels, dtype=np.float64)
