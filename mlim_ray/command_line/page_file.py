"""A page that a command writes where it is told to, and the file that may lie there already."""

from mlim_ray.data import storage

_PAGE_SUFFIXES = (".html", ".htm")
_MARK_BYTES = 2_000


def check_page_path(flag: str, path: str, mark: str, command: str) -> None:
    """A page replaces pages of its own command, and nothing else.

    Args:
        flag: that names the path.
        path: of the page, local or in S3.
        mark: by which pages of the command can be told.
        command: its name.

    Raises:
        ValueError: the path is none of a page, or something else lies there.
    """
    if not path.lower().endswith(_PAGE_SUFFIXES):
        raise ValueError(f"{flag} {path}: expected a file name that ends in .html")
    full = storage.absolute(path)
    if storage.is_folder(full):
        raise ValueError(f"{flag} {path}: is a folder, expected a file name in it")
    if storage.exists(full) and mark.encode() not in storage.read_bytes(full, _MARK_BYTES):
        raise ValueError(
            f"{flag} {path}: another file lies there; name a new one, only pages of {command} are replaced"
        )
