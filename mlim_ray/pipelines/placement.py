"""The workers' reservation, freed when the controller that made it has died.

Ray frees it then only where its dashboard runs. Left alone, it would hold the CPUs that Ray Data needs, and the next
try would wait for ever without a word.
"""

import uuid
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group


class RememberPlacement(WorkerGroupCallback):
    """Lives in Ray Train's controller, and writes down which placement group the workers have.

    The driver keeps it too, for `free`.
    """

    def __init__(self) -> None:
        self._key = f"mlim_ray/placement/{uuid.uuid4().hex}"

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called whenever workers have started."""
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        _internal_kv_put(self._key, group.id.hex(), overwrite=True)

    def free(self) -> None:
        """Free what the last workers had; called when their controller is dead."""
        group = _internal_kv_get(self._key)
        if group is not None:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group.decode()))))
