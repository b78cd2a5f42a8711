"""Sheets of pictures as PNG files, for those who have no browser at hand."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mlim_ray.evaluation.cross_modal import CrossModalRow
from mlim_ray.evaluation.pictures import ReconstructionRow, TitlePiece

ALL_SHEETS = "contact_sheet.png"
_SIDE = 128
_GAP = 12
_LINE = 15
_FONT_SIZE = 12
_LINE_CHARACTERS = 22
_INK, _SOFT, _PAPER = (34, 34, 34), (95, 102, 112), (255, 255, 255)
Tile = tuple[bytes, list[str]]
"""a picture and the lines under it, the first of them in ink"""


def picture_sheets(rows: Sequence[ReconstructionRow], others: Sequence[CrossModalRow]) -> dict[str, bytes]:
    """PNG files by name: a sheet for each record, and all of them as one.

    A sheet has the input, what was hidden, the reconstruction, the composite and the picture from the title alone;
    below, for each hidden word, the cells it attends to and its likeliest guesses with and without the picture.
    """
    sheets = [_sheet(row, other) for row, other in zip(rows, others, strict=True)]
    if not sheets:
        return {}
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), _PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    named = {f"record-{number:02d}.png": sheet for number, sheet in enumerate(sheets, 1)} | {ALL_SHEETS: whole}
    return {name: _encoded(sheet) for name, sheet in named.items()}


def _sheet(row: ReconstructionRow, other: CrossModalRow) -> Image.Image:
    hidden = f"{row.num_hidden_cells} of {row.num_cells} hidden"
    pictures: list[Tile | None] = [
        (row.input_png, ["input"]),
        (row.masked_png, ["hidden", hidden]),
        (row.reconstruction_png, ["reconstruction", "all predicted"]),
        (row.composite_png, ["composite", "hidden cells predicted"]),
        (other.from_title_png, ["from the title alone", "all predicted"]),
    ]
    words: list[Tile | None] = []
    guesses: list[list[str]] = []
    looks = iter(other.attention)
    previous = None
    for seen, unseen in zip(other.pieces, other.pieces_without_picture, strict=True):
        if not seen.is_hidden:
            continue
        # A word of several pieces has one picture, above its first.
        look = next(looks) if seen.word != previous else None
        words.append(None if look is None else (look.png, [look.word, f"looks at cells: {look.cells_ratio:.0%}"]))
        guesses.append([seen.piece, "with the picture", *_lines(seen), "without", *_lines(unseen)])
        previous = seen.word
    bands = [_band(pictures), _band(words), _columns(guesses)]
    title = Image.new("RGB", (max(band.width for band in bands), _LINE + 2 * _GAP), _PAPER)
    _write(title, (_GAP, _GAP), row.title, _INK)
    bands = [title, *bands]
    sheet = Image.new("RGB", (title.width, sum(band.height for band in bands)), _PAPER)
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _lines(piece: TitlePiece) -> list[str]:
    return [
        f"{'> ' if guess.piece == piece.piece else ''}{guess.piece} {guess.probability:.0%}" for guess in piece.guesses
    ]


def _band(tiles: Sequence[Tile | None]) -> Image.Image:
    """Pictures side by side, each with its lines below; some places may be empty."""
    height = _SIDE + _LINE * max((len(tile[1]) for tile in tiles if tile is not None), default=0) + _GAP
    band = Image.new("RGB", (_GAP + len(tiles) * (_SIDE + _GAP), height if tiles else 0), _PAPER)
    for i, tile in enumerate(tiles):
        if tile is None:
            continue
        png, lines = tile
        left = _GAP + i * (_SIDE + _GAP)
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        band.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, 0))
        _write_lines(band, left, _SIDE + 2, lines)
    return band


def _columns(columns: Sequence[list[str]]) -> Image.Image:
    height = _LINE * max((len(lines) for lines in columns), default=0) + _GAP
    band = Image.new("RGB", (_GAP + len(columns) * (_SIDE + _GAP), height), _PAPER)
    for i, lines in enumerate(columns):
        _write_lines(band, _GAP + i * (_SIDE + _GAP), 0, lines)
    return band


def _write_lines(image: Image.Image, left: int, top: int, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        short = line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 3]}..."
        _write(image, (left, top + number * _LINE), short, _SOFT if number else _INK)


def _write(image: Image.Image, place: tuple[int, int], line: str, colour: tuple[int, int, int]) -> None:
    # Pillow's own font has no more letters than these.
    known = line.encode("latin-1", "replace").decode("latin-1")
    ImageDraw.Draw(image).text(place, known, fill=colour, font=ImageFont.load_default(_FONT_SIZE))


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    return out.getvalue()
