"""How raw records become a prepared set."""

from typing import Annotated, Literal

from pydantic import Field

from mlim_ray.config.base import AUTO, Section, ratio

SOURCES = (
    "a Parquet file or folder, CSV, TSV or JSON Lines files and their pictures in a folder, WebDataset tar shards, "
    "a folder of pictures per label, a Lance dataset, generated:NUM_RECORDS, or a prepared set; local or s3://"
)
"""what a set can be prepared from, in words"""


class PrepareConfig(Section):
    """Columns, cleaning, picture size and vocabulary of a prepared set."""

    format: Literal["auto", "parquet", "csv", "jsonl", "webdataset", "folder"] = AUTO
    """form of the source (csv: TSV too; folder: pictures in a folder per label); auto: told from its content"""
    image_column: str | None = None
    """column with the picture (bytes, a struct of bytes, or a path); guessed from names and types when not given"""
    text_column: str | None = None
    """column with the text; guessed when not given"""
    text: str | None = None
    """text from several columns, such as "{brand} {title}. {description}"; an empty column leaves no hole"""
    key_column: str | None = None
    """column that identifies a record; guessed when not given, file and row when there is none"""
    label_column: str | None = None
    """column with a class label, used by the linear probe only; guessed when not given"""
    group_column: str | None = None
    """column that joins records which must share a split; guessed when not given"""
    split_column: str | None = None
    """column that names the split (train, val, test); 80/10/10 by a hash of the group or key when there is none"""
    attribute_columns: tuple[str, ...] = ()
    """further columns kept with each record as texts, for evaluations and filling: `base_colour,gender`"""
    image_folder: str | None = None
    """folder that picture paths are relative to; the folder of the table that names them when not given"""
    image_size: Annotated[int, Field(ge=8, le=2048)] | Literal["auto"] = AUTO
    """side of the stored square picture in pixels; auto: what the model needs"""
    image_encoding: Literal["auto", "raw", "png", "jpeg", "webp"] = AUTO
    """how a stored picture is encoded; auto: raw up to 64 pixels, jpeg above"""
    fit: Literal["stretch", "letterbox", "crop"] = "stretch"
    """how a picture that is not square becomes square (our choice: stretch, so that every cell shows the product)"""
    max_aspect_ratio: float = Field(4.0, ge=1)
    """pictures whose longer side is more than this many times the shorter one are made square by `extreme_fit`
    instead (our choice: stretched further, nothing is to be recognised)"""
    extreme_fit: Literal["letterbox", "crop"] = "letterbox"
    """how a picture beyond `max_aspect_ratio` becomes square: letterbox keeps all of it, crop its middle"""
    background_colour: tuple[int, int, int] = (255, 255, 255)
    """colour behind transparent pixels and letterbox borders, red,green,blue in 0..255"""
    min_image_side: int = Field(8, ge=1)
    """pictures with a shorter side than this many pixels are rejected"""
    max_image_pixels: int = Field(25_000_000, ge=1, le=178_956_970)
    """pictures whose header claims more pixels are rejected before they are decoded (the upper bound is Pillow's)"""
    max_text_characters: int = Field(2_000, ge=1)
    """longer texts are cut there and counted"""
    max_tokens: int = Field(24, ge=3, le=512)
    """most pieces a text may have, [CLS] and [SEP] included; longer ones are cut at a word"""
    vocabulary_size: int = Field(3_000, ge=100)
    """WordPiece vocabulary trained on the training split"""
    tokenizer: str | None = None
    """folder of a WordPiece tokenizer to use instead of training one"""
    max_rejected_ratio: float = ratio(0.05)
    """the job stops once a larger share of the records is rejected (judged after 1,000 records and at the end)"""
