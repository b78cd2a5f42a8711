"""One bad picture of each kind that an inspection treats in its own way."""

from PIL import Image

from tests.data.pictures import compressed_144_megapixels, encoded, gigapixel_header, noise

BAD: dict[str, tuple[bytes | None, str]] = {
    "null": (None, "missing_picture"),
    "zero bytes": (b"", "missing_picture"),
    "web page": (b"<html><body>404</body></html>", "unreadable_picture"),
    "random bytes": (bytes(range(256)) * 8, "unreadable_picture"),
    "truncated jpeg": (encoded(noise(), "JPEG")[:700], "truncated_picture"),
    "gigapixel header": (gigapixel_header(), "too_many_pixels"),
    "144 megapixels": (compressed_144_megapixels(), "too_many_pixels"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "too_small"),
    "thin line": (encoded(Image.new("RGB", (400, 3))), "too_small"),
}
"""What it is: the bytes, and the reason they are rejected for."""
