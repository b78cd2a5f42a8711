"""What the pictures of a sample are like, from their headers alone."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlim_ray.data.cleaning import RawRecord
from mlim_ray.data.images import image_facts
from mlim_ray.data.inspection.distribution import Distribution
from mlim_ray.data.inspection.facts import PictureFacts

_NO_PICTURE = "no picture"
_UNKNOWN_FORMAT = "unknown format"
_SHOWN_SIZES = 20


class PictureSurvey:
    """Gathers pictures one by one."""

    def __init__(self, image_size: int, max_aspect_ratio: float) -> None:
        """`image_size` is the side of the stored square in pixels; shapes beyond `max_aspect_ratio` are extreme."""
        self._image_size = image_size
        self._max_aspect_ratio = max_aspect_ratio
        self._kinds: Counter[str] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._bytes: list[int] = []

    def add(self, record: RawRecord) -> str:
        """Count the picture of a record, and say in words what it is."""
        kind, size, num_bytes = _header(record)
        self._kinds[kind] += 1
        if size is not None:
            self._sizes[size] += 1
        if num_bytes is not None:
            self._bytes.append(num_bytes)
        return kind if size is None else f"{kind}, {size[0]} x {size[1]}"

    def facts(self) -> PictureFacts:
        """Of all pictures so far."""
        sizes = self._sizes
        extreme = {size: count for size, count in sizes.items() if _ratio(size) > self._max_aspect_ratio}
        worst = max(extreme, key=_ratio, default=None)
        return PictureFacts(
            kinds=dict(self._kinds.most_common()),
            sizes={f"{w} x {h}": count for (w, h), count in sizes.most_common(_SHOWN_SIZES)},
            num_sizes=len(sizes),
            width=Distribution.of([w for (w, _), count in sizes.items() for _ in range(count)]),
            height=Distribution.of([h for (_, h), count in sizes.items() for _ in range(count)]),
            num_bytes=Distribution.of(self._bytes),
            num_measured=sizes.total(),
            max_aspect_ratio=self._max_aspect_ratio,
            num_extreme=sum(extreme.values()),
            most_extreme=None if worst is None else f"{worst[0]} x {worst[1]}",
            num_enlarged=sum(count for size, count in sizes.items() if max(size) < self._image_size),
        )


def _header(record: RawRecord) -> tuple[str, tuple[int, int] | None, int | None]:
    """Format and mode, (width, height), encoded bytes; as far as the header tells."""
    image = record.image
    if isinstance(image, np.ndarray):
        return "decoded RGB", (image.shape[1], image.shape[0]), None
    if not isinstance(image, bytes) or not image:
        return _NO_PICTURE, None, None
    facts = image_facts(image)
    if facts is None:
        return _UNKNOWN_FORMAT, None, len(image)
    kind, mode, width, height = facts
    return f"{kind} {mode}", (width, height), len(image)


def _ratio(size: tuple[int, int]) -> float:
    return max(size) / max(1, min(size))
