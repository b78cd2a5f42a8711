"""One bad picture of each kind that an inspection treats in its own way."""

from tests.data.rejected import rejected_pictures

_KINDS = (
    *("null", "zero bytes", "web page", "random bytes", "truncated jpeg"),
    *("gigapixel header", "37 megapixels", "one pixel", "thin line"),
)
BAD: dict[str, tuple[bytes | None, str]] = {kind: rejected_pictures()[kind] for kind in _KINDS}
"""What it is: the bytes, and the reason they are rejected for."""
