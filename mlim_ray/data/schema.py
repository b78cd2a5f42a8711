"""Which column plays which role, guessed from names and types and overridable by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.template import TextTemplate


class Role(StrEnum):
    """What a column is used for."""

    IMAGE = "image"
    TEXT = "text"
    KEY = "key"
    LABEL = "label"
    GROUP = "group"
    SPLIT = "split"


_NAMES: dict[Role, tuple[str, ...]] = {
    Role.IMAGE: (
        *("image", "img", "picture", "photo", "jpg", "png", "thumbnail", "image_bytes", "image_path"),
        *("path", "file", "filename", "file_name", "filepath", "image_file", "image_url", "url"),
    ),
    Role.TEXT: (
        *("text", "title", "caption", "name", "description", "product_title", "product_name"),
        *("productdisplayname", "sentence", "alt_text"),
    ),
    Role.KEY: ("key", "id", "record_id", "item_id", "product_key", "sku", "asin", "uid", "uuid"),
    Role.LABEL: ("label", "category", "class", "product_type", "type"),
    Role.GROUP: ("group_id", "group", "product_id", "family_id", "parent_id"),
    Role.SPLIT: ("split", "fold", "subset", "partition"),
}
# Roles are served in this order, and a column serves one role, so that `product_id` is a group only beside
# a key.
_ORDER = (Role.SPLIT, Role.IMAGE, Role.KEY, Role.GROUP, Role.TEXT, Role.LABEL)
_REQUIRED = (Role.IMAGE, Role.TEXT)


@dataclass(frozen=True)
class Columns:
    """The column of each role; None where the source has none."""

    image: str
    text: str
    """a column, or the text of `template`"""
    key: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    template: TextTemplate | None = None
    """joins several columns to the text"""
    attributes: tuple[str, ...] = ()
    """further columns that records keep as texts"""

    def by_role(self) -> dict[str, str]:
        """Role to column, for those roles that have one."""
        return {role.value: name for role in Role if (name := getattr(self, role.value)) is not None}

    def names(self) -> list[str]:
        """All columns that are read, each once."""
        by_role = self.by_role()
        if self.template is not None:
            del by_role[Role.TEXT.value]
        return list(dict.fromkeys([*by_role.values(), *self.text_columns, *self.attributes]))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that the text comes from."""
        return (self.text,) if self.template is None else self.template.columns


def guess_columns(schema: pa.Schema, config: PrepareConfig, source: str) -> Columns:
    """The columns named in `config`, and for the other roles the best guess from names and types.

    Raises ValueError that lists the columns of `source` and names the flag which mends it, where a named
    column does not exist or has an unusable type, and where no column fits a role that every record needs.
    """
    template = text_template(config)
    chosen: dict[Role, str] = {}
    for role in Role:
        name = getattr(config, f"{role.value}_column")
        if name is not None:
            check_column(schema, role, name, source)
            chosen[role] = name
    if template is not None:
        check_text_columns(schema, template, source)
        chosen[Role.TEXT] = template.text
    for role in _ORDER:
        if role not in chosen:
            taken = set(chosen.values())
            found = _guess(schema, role, taken)
            if found is not None:
                chosen[role] = found
    for role in _REQUIRED:
        if role not in chosen:
            kind = "a picture (bytes, a struct of bytes, or a path)" if role is Role.IMAGE else "text"
            flag = "--image-column NAME" if role is Role.IMAGE else "--text-column NAME or --text TEMPLATE"
            raise ValueError(
                f"no column of {source} looks like {kind}; name it with {flag}. Columns: {describe_columns(schema)}"
            )
    check_attribute_columns(schema, config.attribute_columns, source)
    roles = {role.value: name for role, name in chosen.items()}
    return Columns(**roles, template=template, attributes=config.attribute_columns)


def text_template(config: PrepareConfig) -> TextTemplate | None:
    """What `--text` gives. Raises ValueError if it is malformed, or if `--text-column` is given too."""
    if config.text is None:
        return None
    if config.text_column is not None:
        raise ValueError("--text and --text-column are both given, expected at most one; leave one out")
    return TextTemplate.parse(config.text)


def describe_columns(schema: pa.Schema) -> str:
    """Names and types of all columns in one line."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"


def is_text_type(kind: pa.DataType) -> bool:
    """Whether values of this type are strings."""
    if pa.types.is_dictionary(kind):
        return is_text_type(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary_type(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes."""
    if pa.types.is_dictionary(kind):
        return is_binary_type(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether values are pictures as Hugging Face stores them: a struct of bytes, and maybe a path."""
    return bool(pa.types.is_struct(kind)) and any(
        field.name == "bytes" and (is_binary_type(field.type) or pa.types.is_null(field.type)) for field in kind
    )


def check_columns(schema: pa.Schema, columns: Columns, source: str) -> None:
    """Raise ValueError if a column of `columns` is missing in `source` or has an unusable type."""
    for role, name in columns.by_role().items():
        if columns.template is None or role != Role.TEXT:
            check_column(schema, Role(role), name, source)
    if columns.template is not None:
        check_text_columns(schema, columns.template, source)
    check_attribute_columns(schema, columns.attributes, source)


def check_attribute_columns(schema: pa.Schema, names: Sequence[str], source: str) -> None:
    """Raise ValueError if a column is named twice, missing in `source`, or no text, number or truth value."""
    for name in names:
        flag = f"--attribute-columns {name}"
        if names.count(name) > 1:
            raise ValueError(f"{flag}: named {names.count(name)} times, expected each column once")
        _check_exists(schema, flag, name, source)
        kind = schema.field(name).type
        if not is_attribute_type(kind):
            raise ValueError(f"{flag}: the column is {kind} in {source}, expected string, a number or a truth value")


def is_attribute_type(kind: pa.DataType) -> bool:
    """Whether values of this type can be kept as attributes."""
    if pa.types.is_dictionary(kind):
        return is_attribute_type(kind.value_type)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return is_text_type(kind) or is_binary_type(kind) or bool(is_number or pa.types.is_null(kind))


def check_text_columns(schema: pa.Schema, template: TextTemplate, source: str) -> None:
    """Raise ValueError if a column that `template` names is missing in `source` or is no text or number."""
    for name in template.columns:
        flag = f"--text {template.text!r}: {{{name}}}"
        _check_exists(schema, flag, name, source)
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            raise ValueError(f"{flag}: the column is {kind} in {source}, expected string or a number")


def check_column(schema: pa.Schema, role: Role, name: str, source: str) -> None:
    """Raise ValueError if the column `name` cannot serve `role` in `source`."""
    flag = f"--{role.value}-column {name}"
    _check_exists(schema, flag, name, source)
    kind = schema.field(name).type
    if not _fits(role, kind):
        expected = {
            Role.IMAGE: "bytes, a struct of bytes, or a path as string",
            Role.TEXT: "string",
        }.get(role, "string or integer")
        raise ValueError(f"{flag}: the column is {kind} in {source}, expected {expected}")


def _check_exists(schema: pa.Schema, flag: str, name: str, source: str) -> None:
    if schema.names.count(name) != 1:
        found = "no such column" if name not in schema.names else "several columns have this name"
        raise ValueError(f"{flag}: {found} in {source}. Columns: {describe_columns(schema)}")


def _fits(role: Role, kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        # A column without any value, which some writers give no other type.
        return True
    if role is Role.IMAGE:
        return is_binary_type(kind) or is_image_struct(kind) or is_text_type(kind)
    if role is Role.TEXT:
        return is_text_type(kind) or is_binary_type(kind)
    if role is Role.SPLIT:
        return is_text_type(kind)
    return is_text_type(kind) or is_binary_type(kind) or bool(pa.types.is_integer(kind)) or _is_integers(kind)


def _is_integers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and pa.types.is_integer(kind.value_type))


def _guess(schema: pa.Schema, role: Role, taken: set[str]) -> str | None:
    # Some tables have tens of thousands of columns.
    times = Counter(schema.names)
    free = [
        field for field in schema if field.name not in taken and times[field.name] == 1 and _guessable(role, field.type)
    ]
    by_name = {field.name.lower(): field.name for field in reversed(free)}
    if role is Role.IMAGE:
        for fits in (lambda kind: is_image_struct(kind) or is_binary_type(kind), is_text_type):
            names = {low: name for low, name in by_name.items() if fits(schema.field(name).type)}
            found = next((names[name] for name in _NAMES[role] if name in names), None)
            if found is not None:
                return found
        pictures = [f.name for f in free if is_image_struct(f.type) or is_binary_type(f.type)]
        return pictures[0] if len(pictures) == 1 else None
    found = next((by_name[name] for name in _NAMES[role] if name in by_name), None)
    if found is None and role is Role.TEXT and len(free) == 1:
        return free[0].name
    return found


def _guessable(role: Role, kind: pa.DataType) -> bool:
    # Bytes may be text or a key only when the user says so.
    if role is Role.IMAGE:
        return _fits(role, kind)
    return _fits(role, kind) and not is_binary_type(kind)
