"""S3 for what Ray itself writes into a run folder: with our credentials, encryption and patience.

Ray takes any file system of pyarrow. pyarrow's own one for S3 gives up within a second, and a run would end on it.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mlim_ray.data import storage


def ray_storage(path: str) -> dict[str, Any]:
    """The arguments of Ray's RunConfig that make it keep its files in `path`, local or in S3."""
    if not storage.is_remote(path):
        return {"storage_path": path}
    return {"storage_path": path.removeprefix("s3://"), "storage_filesystem": fs.PyFileSystem(_S3Files())}


class _S3Files(fs.FileSystemHandler):
    """What pyarrow asks of a file system, by our own storage; paths are `bucket/key`. Folders need not be made."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _S3Files)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(_S3Files)

    def get_type_name(self) -> str:
        return "mlim-ray-s3"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [_info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        folder = selector.base_dir.rstrip("/")
        if not storage.is_folder(_url(folder)):
            if selector.allow_not_found:
                return []
            raise FileNotFoundError(_url(folder))
        found: dict[str, fs.FileInfo] = {}
        for file in storage.iter_files(_url(folder)):
            *above, _ = file.relative.split("/")
            for depth in range(1, (len(above) if selector.recursive else min(1, len(above))) + 1):
                name = "/".join([folder, *above[:depth]])
                found[name] = fs.FileInfo(name, fs.FileType.Directory)
            if selector.recursive or not above:
                name = f"{folder}/{file.relative}"
                found[name] = fs.FileInfo(name, fs.FileType.File, size=file.num_bytes)
        return list(found.values())

    def create_dir(self, path: str, recursive: bool) -> None:
        pass

    def delete_dir(self, path: str) -> None:
        storage.remove_tree(_url(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        storage.remove_tree(_url(path))

    def delete_root_dir_contents(self) -> None:
        raise ValueError("deleting every bucket was asked for; name a folder")

    def delete_file(self, path: str) -> None:
        storage.remove(_url(path))

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        storage.remove(_url(src))

    def copy_file(self, src: str, dest: str) -> None:
        storage.write_bytes_atomically(_url(dest), storage.read_bytes(_url(src)))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        try:
            return pa.PythonFile(storage.open_read(_url(path)), mode="r")
        except storage.MissingPathError as error:
            # Ray tells a first start from a later one by this error.
            raise FileNotFoundError(_url(path)) from error

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        return pa.PythonFile(_Written(_url(path)), mode="w")

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        raise ValueError(f"{_url(path)}: S3 cannot append; write the file anew")


class _Written(io.BytesIO):
    """A file that is in S3, whole, once it is closed."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            storage.write_bytes_atomically(self._path, self.getvalue())
        super().close()


def _url(path: str) -> str:
    return f"s3://{path}"


def _info(path: str) -> fs.FileInfo:
    num_bytes = storage.file_bytes(_url(path))
    if num_bytes is not None:
        return fs.FileInfo(path, fs.FileType.File, size=num_bytes)
    return fs.FileInfo(path, fs.FileType.Directory if storage.is_folder(_url(path)) else fs.FileType.NotFound)
