"""What a reader who knows the generator sees in two listings: how far titles or pictures can tell products apart.

A picture shows the values of the shown attributes, whatever its pose and background, and nothing else of the product; a
title tells the values of those that it names, whatever their wording, and its template. So what is said here of two
listings is all that there is to be known of whether they are of one product.

Legend: P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlim_ray.data.synthetic.attributes import ATTRIBUTES
from mlim_ray.data.synthetic.titles import read_title


def compare_titles(firsts: Sequence[str], seconds: Sequence[str]) -> NDArray[np.int8]:
    """Of each pair of titles int8 [P, 8]: for each attribute 1 if both name it and agree, -1 if they do not agree, 0 if
    either leaves it out; then the numbers of both templates.

    Raises ValueError for a text that no template makes.
    """
    rows = []
    for first, second in zip(map(read_title, firsts), map(read_title, seconds), strict=True):
        agreements = []
        for name in ATTRIBUTES:
            value, other = first.values.get(name), second.values.get(name)
            agreements.append(0 if value is None or other is None else 1 if value == other else -1)
        rows.append([*agreements, *sorted((first.template, second.template))])
    return np.array(rows, np.int8).reshape(-1, len(ATTRIBUTES) + 2)


def compare_pictures(firsts: Mapping[str, ArrayLike], seconds: Mapping[str, ArrayLike]) -> NDArray[np.int8]:
    """Of each pair of products int8 [P, 4]: for each attribute that pictures show 1 if it agrees, else -1.

    Given are the names of the values, under the attributes' names.
    """
    columns = [
        np.where(np.asarray(firsts[name], object) == np.asarray(seconds[name], object), 1, -1)
        for name, attribute in ATTRIBUTES.items()
        if attribute.is_shown
    ]
    return np.stack(columns, 1).astype(np.int8)
