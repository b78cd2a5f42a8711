"""The generated catalogue as a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.manifest import Generated
from mlim_ray.data.schema import Columns, guess_columns
from mlim_ray.data.sources.source import Slice, cut
from mlim_ray.data.synthetic import SCHEMA, generate

PREFIX = "generated:"
SEED = 0


@dataclass(frozen=True)
class GeneratedSource:
    """The first records of the generated catalogue; each is a function of its number."""

    name: str
    generated: Generated
    columns: Columns
    image_size: int
    format: str = "generated catalogue"

    @classmethod
    def open(cls, name: str, config: PrepareConfig) -> GeneratedSource:
        """`generated:NUM_RECORDS`. Raises ValueError if NUM_RECORDS is no whole number above 0."""
        number = name[len(PREFIX) :]
        if not (number.isascii() and number.isdigit() and int(number) > 0):
            raise ValueError(f"{name}: expected {PREFIX}NUM_RECORDS with a whole number above 0")
        if config.image_size == "auto":
            raise ValueError("image_size is auto; expected a resolved config")
        generated = Generated(num_records=int(number), seed=SEED)
        return cls(name, generated, guess_columns(SCHEMA, config, name), config.image_size)

    @property
    def column_types(self) -> dict[str, str]:
        """Columns of the catalogue."""
        return {field.name: str(field.type) for field in SCHEMA}

    @property
    def identity(self) -> list[tuple[str, int, str]]:
        """The numbers that the records are a function of."""
        return [(self.name, self.generated.num_records, f"seed {self.generated.seed}, {self.image_size} px")]

    def slices(self) -> list[Slice]:
        """Ranges of record numbers."""
        return cut(0, 0, self.generated.num_records)

    def read(self, part: Slice) -> Iterator[list[RawRecord]]:
        """Generate the records of a slice."""
        table = generate(
            part.start,
            part.stop,
            num_records=self.generated.num_records,
            seed=self.generated.seed,
            image_size=self.image_size,
        )
        nothing = [None] * table.num_rows
        columns = self.columns
        texts = zip(*(table[name].to_pylist() for name in columns.text_columns), strict=True)
        fill = (lambda values: values[0]) if columns.template is None else columns.template.fill
        keys, images, labels, groups, splits = (
            nothing if name is None else table[name].to_pylist()
            for name in (columns.key, columns.image, columns.label, columns.group, columns.split)
        )
        rows = zip(keys, images, map(fill, texts), labels, groups, splits, strict=True)
        attributes = table.select(columns.attributes).to_pylist()
        yield [
            RawRecord("generated", row, *record, attributes=found)
            for row, (record, found) in enumerate(zip(rows, attributes, strict=True), part.start)
        ]
