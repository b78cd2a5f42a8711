"""An inspection as plain lines for the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlim_ray.data.inspection import Distribution, Inspection, share
from mlim_ray.data.rejection import shorten
from mlim_ray.reporting.quantities import data_size, rough_time

_SHOWN = 6
_NAME_WIDTH = 10
_MAX_CHARACTERS = 100


def inspection_lines(found: Inspection) -> list[str]:
    """What a person reads, line by line; whatever the data holds, each line is printable."""
    return [f"{name:<{_NAME_WIDTH}}{text}" for name, text in _lines(found)]


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "source", shorten(found.source)
    yield "format", _format(found)
    yield "columns", _columns(found)
    places = "place" if found.num_places == 1 else "places"
    yield "sample", f"{found.num_sampled:,} records from {found.num_places} {places}"
    yield from _pictures(found)
    yield from _texts(found)
    yield "labels", _labels(found)
    yield "splits", _counted(found.splits, found) or "none"
    yield "keys", _keys(found)
    yield from _rejected(found)
    yield from _estimate(found)
    if found.prepared is not None:
        yield "manifest", _plain(found.prepared["counts"])
    for hint in found.hints:
        yield "hint", hint


def _format(found: Inspection) -> str:
    if found.num_files is None or found.num_bytes is None:
        return f"{found.format}, {found.num_records:,} records"
    files = "file" if found.num_files == 1 else "files"
    return f"{found.format}, {found.num_records:,} records, {found.num_files:,} {files}, {data_size(found.num_bytes)}"


def _columns(found: Inspection) -> str:
    used: dict[str, list[str]] = {}
    for role, column in found.columns.items():
        used.setdefault(column, []).append(role)
    for column in found.attributes:
        used.setdefault(column, []).append("attribute")
    shown = [
        f"{shorten(name, _MAX_CHARACTERS)} ({kind}{', used as ' + ' and '.join(used[name]) if name in used else ''})"
        for name, kind in found.column_types.items()
    ]
    made = [
        f"{shorten(name, _MAX_CHARACTERS)} (used as {' and '.join(roles)})"
        for name, roles in used.items()
        if name not in found.column_types
    ]
    return ", ".join(shown + made)


def _pictures(found: Inspection) -> Iterator[tuple[str, str]]:
    pictures = found.pictures
    yield "pictures", _shares(pictures.kinds, found.num_sampled)
    if pictures.width is None or pictures.height is None:
        return
    more = pictures.num_sizes - min(_SHOWN, len(pictures.sizes))
    sizes = _shares(dict(list(pictures.sizes.items())[:_SHOWN]), pictures.num_measured)
    yield "sizes", sizes + (f" and {more} more" if more > 0 else "")
    yield (
        "",
        f"width {_range(pictures.width)} px, height {_range(pictures.height)} px"
        + ("" if pictures.num_bytes is None else f", {_byte_range(pictures.num_bytes)}"),
    )
    if pictures.num_extreme:
        times = f"{pictures.max_aspect_ratio:g} times"
        yield "", f"{pictures.num_extreme} more than {times} as long as wide, or as wide: up to {pictures.most_extreme}"


def _texts(found: Inspection) -> Iterator[tuple[str, str]]:
    texts = found.texts
    if texts is None:
        yield "texts", "none accepted"
        return
    cut = f"; {texts.num_cut_characters} too long, cut" if texts.num_cut_characters else ""
    yield "texts", f"{_range(texts.words)} words, {_range(texts.characters)} characters{cut}"
    vocabulary = (
        f"a vocabulary of {texts.vocab_size:,} pieces trained on the sample"
        if texts.tokenizer is None
        else f"the {texts.vocab_size:,} pieces of {shorten(texts.tokenizer, _MAX_CHARACTERS)}"
    )
    yield (
        "tokens",
        (
            f"{_range(texts.tokens)}, 95 % at most {texts.tokens.p95}; --max-tokens {texts.max_tokens} cuts "
            f"{texts.num_cut_tokens:,} of {texts.num_texts:,} texts; by {vocabulary}"
        ),
    )


def _labels(found: Inspection) -> str:
    if not found.labels:
        return "none"
    return f"{len(found.labels):,} in the sample: {_counted(found.labels, found)}"


def _keys(found: Inspection) -> str:
    groups = ""
    if found.num_groups:
        groups = f"; {found.num_groups:,} groups, {found.num_groups_across} of them across splits"
    if "key" not in found.columns:
        return f"file and row{groups}"
    return f"{found.num_repeated_keys} of {found.num_accepted:,} repeated within the sample{groups}"


def _rejected(found: Inspection) -> Iterator[tuple[str, str]]:
    rejected = found.num_sampled - found.num_accepted
    yield "rejected", f"{rejected:,} of {found.num_sampled:,}" + (f": {_plain(found.reasons)}" if rejected else "")
    for example in found.rejections:
        key = "" if example.key is None else f", key {example.key}"
        place = f"{shorten(example.source, _MAX_CHARACTERS)}:{example.row}"
        about = f" (about {found.scaled(example.count):,} in all)" if found.num_sampled < found.num_records else ""
        yield "", f"{example.reason}{about}, first at {place}{key}: {example.detail}"


def _estimate(found: Inspection) -> Iterator[tuple[str, str]]:
    expected = found.estimate
    if expected is None:
        return
    stored = f"{found.image_size} x {found.image_size}, {found.image_encoding}"
    yield (
        "disk",
        (
            f"about {data_size(expected.set_bytes)} for the set ({stored}), "
            f"{data_size(expected.peak_bytes)} while it is made"
        ),
    )
    cpus = "CPU" if expected.num_cpus == 1 else "CPUs"
    record_ms = 1_000 * (expected.read_s + expected.clean_s)
    yield (
        "time",
        f"about {rough_time(expected.seconds)} on {expected.num_cpus} {cpus}: {rough_time(expected.start_s)} to start "
        f"Ray, then {record_ms:.2g} ms a record and CPU, timed on the sample",
    )


def _range(of: Distribution) -> str:
    if of.minimum == of.maximum:
        return f"{of.minimum:,}"
    return f"{of.minimum:,} to {of.maximum:,} (median {of.median:,})"


def _byte_range(of: Distribution) -> str:
    if of.minimum == of.maximum:
        return data_size(of.minimum)
    return f"{data_size(of.minimum)} to {data_size(of.maximum)} (median {data_size(of.median)})"


def _shares(counts: Mapping[str, int], total: int) -> str:
    return ", ".join(f"{name} {share(count, total)}" for name, count in counts.items()) or "none"


def _plain(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int))


def _counted(counts: Mapping[str, int], found: Inspection) -> str:
    """The commonest, with what they come to in the whole source."""
    is_part = found.num_sampled < found.num_records
    shown = [
        f"{shorten(name, _MAX_CHARACTERS)} {count:,}" + (f" (about {found.scaled(count):,})" if is_part else "")
        for name, count in list(counts.items())[:_SHOWN]
    ]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
