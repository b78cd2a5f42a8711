"""Which files of a listing are the records, and in which form."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mlim_ray.config.base import AUTO
from mlim_ray.config.prepare import SOURCES
from mlim_ray.data import storage
from mlim_ray.data.sources.forms import HEAD_BYTES, PICTURE_SUFFIXES, Form, form_of
from mlim_ray.data.sources.listing import Listing

_SNIFFED_FILES = 16
"""files of one suffix that are looked into; only where they differ, all are"""
_THREADS = 16
_FORMS = tuple(Form)


class _Found:
    """The form of each file: its number in `_FORMS`, or -1."""

    def __init__(self, listing: Listing) -> None:
        self.form_F = np.full(len(listing), -1, np.int8)
        self.is_certain_F = np.zeros(len(listing), np.bool_)
        visible_F = ~listing.hidden()
        self._has_pictures = bool((listing.of_suffix(PICTURE_SUFFIXES.__contains__) & visible_F).any())
        for number, suffix in enumerate(listing.suffixes):
            files = np.flatnonzero((listing.suffix_F == number) & visible_F)
            if suffix in PICTURE_SUFFIXES:
                self._set(files, (Form.FOLDER, True))
            elif len(files):
                self._look(listing, files)

    def of(self, form: Form, certain: bool | None = None) -> NDArray[np.bool_]:
        """The files of a form; all, or those that are certain or not."""
        chosen: NDArray[np.bool_] = self.form_F == _FORMS.index(form)
        return chosen if certain is None else chosen & (self.is_certain_F == certain)

    def forms(self, certain: bool) -> list[Form]:
        """The forms that there are files of."""
        return [form for form in Form if self.of(form, certain).any()]

    def _look(self, listing: Listing, files: NDArray[np.int64]) -> None:
        def look(number: int) -> tuple[Form | None, bool]:
            file = listing.file(number)
            suffix = listing.suffixes[listing.suffix_F[number]]
            return form_of(suffix, storage.read_bytes(file.path, HEAD_BYTES) if file.num_bytes else b"")

        with ThreadPoolExecutor(_THREADS) as pool:
            places = np.unique(np.linspace(0, len(files) - 1, _SNIFFED_FILES).astype(int))
            found = list(pool.map(look, files[places].tolist()))
            if len(set(found)) == 1:
                self._set(files, found[0])
            elif not self._has_pictures or any(is_certain for _, is_certain in found):
                # Else they are the captions of pictures, of which there may be millions.
                for number, form in zip(files.tolist(), pool.map(look, files.tolist()), strict=True):
                    self._set(np.array([number]), form)

    def _set(self, files: NDArray[np.int64], form: tuple[Form | None, bool]) -> None:
        if form[0] is not None:
            self.form_F[files], self.is_certain_F[files] = _FORMS.index(form[0]), form[1]


def choose_files(name: str, listing: Listing, wanted: str) -> tuple[Form, NDArray[np.bool_]]:
    """The form of the source `name`, and which files hold its records.

    `wanted` is a form, or auto: then files that are certainly tables or shards win over pictures, which they
    may name, and pictures over text files, which may be their captions. Raises ValueError that says what was
    found where nothing fits, where files are not of the `wanted` form, and for a mixture.
    """
    found = _Found(listing)
    if wanted != AUTO:
        return _named(name, listing, found, Form(wanted))
    certain, possible = found.forms(certain=True), found.forms(certain=False)
    with_pictures = Form.FOLDER in certain
    tables = [form for form in certain if form is not Form.FOLDER]
    if len(tables) > 1 or (with_pictures and Form.WEBDATASET in tables):
        raise _mixed(name, listing, found, certain)
    if tables:
        return tables[0], found.of(tables[0], certain=True)
    if with_pictures:
        return Form.FOLDER, found.of(Form.FOLDER)
    if len(possible) > 1:
        raise _mixed(name, listing, found, possible)
    if possible:
        return possible[0], found.of(possible[0])
    raise ValueError(f"{name} holds only files of {_suffixes(listing, None)}; expected {SOURCES}")


def _named(name: str, listing: Listing, found: _Found, form: Form) -> tuple[Form, NDArray[np.bool_]]:
    chosen = found.of(form, certain=True)
    if not chosen.any():
        chosen = found.of(form)
    is_open = listing.is_file and not found.is_certain_F[0] and Form.JSONL not in found.forms(certain=False)
    if not chosen.any() and is_open and form in (Form.CSV, Form.JSONL):
        # Text in which nothing speaks for a form, nor against the one that was named.
        chosen = np.ones(1, np.bool_)
    if not chosen.any():
        kinds = [kind for certain in (True, False) for kind in found.forms(certain)]
        there = _counted(listing, found, list(dict.fromkeys(kinds))) or f"files of {_suffixes(listing, None)}"
        raise ValueError(
            f"--format {form}: no {form.shown} file in {name}, which holds {there}; name another form, or leave it out"
        )
    return form, chosen


def _mixed(name: str, listing: Listing, found: _Found, forms: list[Form]) -> ValueError:
    choices = " or ".join(f"--format {form}" for form in forms)
    return ValueError(
        f"{name} holds {_counted(listing, found, forms)}; expected files of one form: name it with {choices}, "
        f"or keep the others elsewhere"
    )


def _counted(listing: Listing, found: _Found, forms: list[Form]) -> str:
    shown = []
    for form in forms:
        chosen = found.of(form)
        num_files = int(chosen.sum())
        files = "file" if num_files == 1 else "files"
        shown.append(f"{num_files:,} {form.shown} {files} ({_suffixes(listing, chosen)})")
    return " and ".join(shown)


def _suffixes(listing: Listing, chosen: NDArray[np.bool_] | None) -> str:
    numbers = listing.suffix_F if chosen is None else listing.suffix_F[chosen]
    counts = Counter(numbers.tolist())
    return ", ".join(listing.suffixes[number] or "no suffix" for number, _ in counts.most_common(8))
