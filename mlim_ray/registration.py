"""Makes transformers' Auto classes know the model, as soon as they are there and not before.

Importing torch and transformers takes seconds, and tasks that feed batches import mlim_ray too and need neither. So
nothing is imported until somebody imports the Auto classes. transformers' modules import one another in circles: the
model, which needs some of them, is imported when the outermost of them is complete.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LIBRARY = "transformers"
_AUTO_CLASSES = "transformers.models.auto.configuration_auto"
_MODEL = "mlim_ray.model.pretrained"


def register_with_transformers() -> None:
    """Have the model registered once transformers' Auto classes are imported, now if they are already."""
    if _AUTO_CLASSES in sys.modules:
        importlib.import_module(_MODEL)
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Finds nothing itself; it sees each module of transformers begin and end, until the Auto classes are there."""

    def __init__(self) -> None:
        self._in_this_thread = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, watched if it is of transformers."""
        if fullname.partition(".")[0] != _LIBRARY:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                self._watch(spec)
                return spec
        return None

    def _watch(self, spec: ModuleSpec) -> None:
        loader = spec.loader
        if loader is None:
            return
        execute = loader.exec_module

        def execute_watched(module: ModuleType) -> None:
            del loader.exec_module
            depth = getattr(self._in_this_thread, "depth", 0)
            self._in_this_thread.depth = depth + 1
            try:
                execute(module)
            finally:
                self._in_this_thread.depth = depth
            if depth == 0 and _AUTO_CLASSES in sys.modules:
                self._register()

        loader.exec_module = execute_watched  # type: ignore[method-assign]

    def _register(self) -> None:
        # Another thread may have been here.
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        importlib.import_module(_MODEL)
