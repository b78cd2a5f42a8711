"""What a model is measured by between the rungs of a search (contract C5)."""

from collections.abc import Iterable

from mlim_ray.config import PretrainConfig
from mlim_ray.config.score import LINEAR_MEASURES, Objective
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.held_out import LabelledRecords, load_held_out, load_probe_set
from mlim_ray.evaluation.partner_probe import ProbeSet, partner_measures, probe_partners
from mlim_ray.model import MlimModel


class Measurer:
    """Takes the measures that some objectives need, on held-out records that are read once.

    Args:
        prepared: the set.
        config: its probe says which records are held out.
        objectives: what trials are ranked by.
        num_cells: of a picture.

    Raises:
        ValueError: an objective needs labels and the set has none, or a single one.
    """

    def __init__(
        self, prepared: PreparedSet, config: PretrainConfig, objectives: Iterable[Objective], num_cells: int
    ) -> None:
        names = {name for objective in objectives for name, _ in objective.weights}
        self._probe: ProbeSet
        self._labelled: tuple[LabelledRecords, LabelledRecords] | None = None
        if names.isdisjoint(LINEAR_MEASURES):
            self._probe = load_probe_set(prepared, config.probe, num_cells)
            return
        held_out = load_held_out(prepared, config.probe, num_cells, skips_damaged=config.feed.skips_damaged)
        if held_out.labelled_train is None or held_out.labelled_held_out is None:
            raise ValueError(
                f"search.score needs labels and {prepared.path} has no two of them; prepare it with --label-column, or "
                "choose probe, mlm or recon"
            )
        self._probe = held_out.probe
        self._labelled = held_out.labelled_train, held_out.labelled_held_out

    def __call__(self, model: MlimModel) -> dict[str, float]:
        """The measures by name, all of them lower is better: the partner probe's, and the linear probe's errors where
        an objective asks for any."""
        measures = partner_measures(probe_partners(model, self._probe, wrong_partners=False), self._probe)
        if self._labelled is not None:
            # It loads scikit-learn: 60 MiB of each process of trials, which most searches do without.
            from mlim_ray.evaluation.linear_probe import linear_probe

            accuracy = linear_probe(model, *self._labelled)
            measures |= {
                "linear_picture": 1.0 - accuracy.picture_only,
                "linear_with_title": 1.0 - accuracy.with_title,
            }
        return measures
