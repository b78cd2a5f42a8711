"""Configs as YAML files: a run's whole `config.yaml`, and the `best.yaml` that a search writes.

A `best.yaml` has two parts. `method` (masking and the losses) is what a search learned about pre-training and
carries over to another model size; `size` (model, train.learning_rate) belongs to the size that was searched.
"""

import json
import re
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mlim_ray.config.base import Section
from mlim_ray.config.overlay import laid_over
from mlim_ray.config.run import PretrainConfig
from mlim_ray.config.wording import plain_problem, shown

_BEST_SECTIONS = {
    "method": ("masking", "resolution", "mlm", "recon", "itm", "itc", "balance"),
    "size": ("model", "train"),
}
MOST_BYTES = 1 << 20
"""of a config file; a larger one is refused"""

Config = TypeVar("Config", bound=PretrainConfig)


def config_text(config: Section) -> str:
    """A config as YAML text, keys in the order of their classes; `parse_config` reads it back unchanged."""
    return _dump(config.model_dump(mode="json"))


def best_parts(config: PretrainConfig) -> dict[str, Any]:
    """The parts of a `best.yaml` as plain dicts: `method` and `size`."""
    values = config.model_dump(mode="json")
    return {
        "method": {name: values[name] for name in _BEST_SECTIONS["method"]},
        "size": {"model": values["model"], "train": {"learning_rate": values["train"]["learning_rate"]}},
    }


def best_text(config: PretrainConfig) -> str:
    """The text of the `best.yaml` of a winning config."""
    return _dump(best_parts(config))


def parse_config(content: bytes, path: str, base: Config, size_override: str | None = None) -> Config:
    """`base` with what a config file says laid over it.

    Args:
        content: of a `config.yaml` (whole or in part) or a `best.yaml`, no more than MOST_BYTES + 1 of it.
        path: where it was read from; errors name it.
        base: gives every knob that the file leaves out.
        size_override: the model size asked for on the command line, if any. Where it differs from the file's,
            everything in the file that belongs to the size is left out: the model section, the learning rate,
            and the resolved picture size and encoding of a `config.yaml`.

    Raises:
        ValueError: one line naming the file and the key, for anything that is not a valid config.
    """
    data = parse_yaml(content, path)
    if "method" in data or "size" in data:
        data = _joined_parts(path, data)
    if size_override is not None and _section(data, "model").get("size", base.model.size) != size_override:
        data = _without_size(data)
    merged = laid_over(base.model_dump(mode="json"), data, type(base))
    try:
        return type(base).model_validate_json(json.dumps(merged))
    except ValidationError as error:
        key, sentence = plain_problem(error, type(base))
        raise ValueError(": ".join(filter(None, (path, key, sentence)))) from error


def parse_yaml(content: bytes, path: str) -> dict[str, Any]:
    """The sections of a config file as they stand in it; `path` is named in errors, as `parse_config` does.

    Raises:
        ValueError: it is no YAML of sections, or larger than MOST_BYTES.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path}: larger than {MOST_BYTES} bytes, expected a config in YAML")
    try:
        data = yaml.load(content, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}: cannot be read as YAML{where}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML, expected a config of sections and keys") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ValueError(f"{path}: given {shown(data)}, expected sections with keys, such as train: and masking:")
    return data


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases (they can blow up a small file), repeated keys or dates; 1e-3 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not accepted; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key_node.value for key_node, _ in node.value]
        for position, name in enumerate(names):
            if name in names[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"key {shown(name)} is given twice; keep one", problem_mark=mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _StrictDumper(yaml.SafeDumper):
    """Writes what `_StrictLoader` reads back unchanged."""


for _class in (_StrictLoader, _StrictDumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def _joined_parts(path: str, data: dict[str, Any]) -> dict[str, Any]:
    """The sections of a `best.yaml`, its two parts joined."""
    _only(path, "", data, tuple(_BEST_SECTIONS))
    for part, sections in _BEST_SECTIONS.items():
        _only(path, f"{part}.", _section(data, part, path), sections)
    _only(path, "size.train.", _section(_section(data, "size"), "train", path), ("learning_rate",))
    return {**_section(data, "method"), **_section(data, "size")}


def _only(path: str, where: str, data: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            raise ValueError(f"{path}: {where}{shown(key)}: unknown key; known in a best.yaml: {', '.join(known)}")


def _section(data: dict[str, Any], name: str, path: str | None = None) -> dict[str, Any]:
    content = data.get(name, {})
    if isinstance(content, dict):
        return content
    if path is None:
        return {}
    raise ValueError(f"{path}: {name}: given {shown(content)}, expected sections with keys")


def _without_size(data: dict[str, Any]) -> dict[str, Any]:
    kept = {name: content for name, content in data.items() if name != "model"}
    for name, keys in (("train", ("learning_rate",)), ("prepare", ("image_size", "image_encoding"))):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in keys}
    return kept


def _dump(values: dict[str, Any]) -> str:
    return str(yaml.dump(values, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=100))
