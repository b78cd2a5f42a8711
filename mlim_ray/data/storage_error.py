"""What goes wrong with files, local and in S3."""


class StorageError(ValueError):
    """A path that cannot be read or written; the message names the path and the mend."""


class MissingPathError(StorageError):
    """A path where there is nothing."""
