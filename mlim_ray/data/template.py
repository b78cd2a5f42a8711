"""One text from several columns: `{brand} {title}. {description}`."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

TextValue = bytes | str | int | float | None
"""What a column may give for a text: strings, maybe as bytes, and numbers."""

_CLOSING, _OPENING = r")\]}>\"'", r"(\[{<\"'"
_LITERAL = re.compile(rf"([{_CLOSING}]*)([^\w{_OPENING}]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class _Part:
    """A column with what belongs to it: both go when the column is empty."""

    separator: str
    """between the part before and this one"""
    before: str
    column: int
    after: str


@dataclass(frozen=True)
class TextTemplate:
    """Names of columns in braces with text between them; `{{` and `}}` stand for braces.

    A null or blank column leaves no hole. What stands between two columns is cut into closing brackets, which
    belong to the column before, a separator (spaces and punctuation), and words or an opening bracket, which
    belong to the column after. What belongs to an empty column goes with it, one separator stays between
    two columns that are not empty (of several the first with punctuation), and none at either end:
    `{brand} {title} ({size}). {text}` without title and size gives `Nike. A shoe`.
    """

    text: str
    """as it was given"""
    columns: tuple[str, ...]
    """each once, in the order of first mention"""
    _parts: tuple[_Part, ...]
    _end: str
    """after the last column"""

    @classmethod
    def parse(cls, text: str) -> TextTemplate:
        """Raises ValueError for a template without columns, and for anything in braces but a plain name.

        Nothing of Python's format language beyond names is taken, so that a template cannot reach into values.
        """
        given = f"--text {text!r}"
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{given}: {error}; expected column names in braces, {{{{ and }}}} for braces") from error
        literals = [""]
        names: list[str] = []
        for literal, name, spec, conversion in fields:
            literals[-1] += literal
            if name is None:
                continue
            if not name.strip() or spec or conversion or re.search(r"[.\[\]{}!:]", name):
                shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ValueError(f"{given}: {{{shown}}} is no plain column name; expected one such as {{title}}")
            names.append(name)
            literals.append("")
        if not names:
            raise ValueError(f"{given} names no column; expected some in braces, such as {{title}}")
        columns = tuple(dict.fromkeys(names))
        parts, separator, before = [], "", literals[0]
        for position, name in enumerate(names, 1):
            found = _LITERAL.fullmatch(literals[position])
            assert found is not None
            after, next_separator, next_before = found.groups()
            parts.append(_Part(separator, before, columns.index(name), after))
            separator, before = next_separator, next_before
        return cls(text, columns, tuple(parts), separator + before)

    def fill(self, values: Sequence[TextValue]) -> str | None:
        """The text of one record from the values of `columns`; None if all are empty.

        Bytes that are no UTF-8 become lone surrogates, which the cleaning refuses.
        """
        shown = [_shown(value) for value in values]
        text: str | None = None
        separators: list[str] = []
        for part in self._parts:
            separators.append(part.separator)
            if shown[part.column]:
                group = part.before + shown[part.column] + part.after
                visible = (separator for separator in separators if separator.strip())
                text = group if text is None else text + next(visible, separators[0]) + group
                separators = []
        # Words at the end stand for themselves; mere punctuation belongs to the last column.
        keeps_end = not separators or any(character.isalnum() for character in self._end)
        return text if text is None or not keeps_end else text + self._end


def _shown(value: TextValue) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    return str(value).strip()
