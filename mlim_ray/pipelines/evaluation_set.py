"""The prepared set that a run is evaluated on: its own, one that is there, or one that is made of a source."""

from collections.abc import Iterable
from functools import partial

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data import storage
from mlim_ray.data.origin import Origin
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources import open_with_files, resolve_prepare_config
from mlim_ray.pipelines.evaluation_results import RESULTS
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.pipelines.setting import is_prepared, prepared_path
from mlim_ray.reporting.progress import Stages, say
from mlim_ray.training.earlier_run import EarlierRun
from mlim_ray.training.loaded_run import LoadedRun


def fitting_set(
    path: str, run: LoadedRun, source: str, config: PrepareConfig, attributes: Iterable[str]
) -> PreparedSet:
    """The set of `source` with the vocabulary, the picture size and the text length of a run's model.

    A prepared set that has them is taken as it is; anything else is prepared into the run's folder, once.

    Args:
        path: the run folder.
        run: the run in it.
        source: a source of records, or a prepared set.
        config: how its records are cleaned.
        attributes: columns that it must keep beside those of `config`.

    Raises:
        ValueError: the source cannot be read, or has not these columns.
    """
    if is_prepared(source):
        found = PreparedSet.open(source)
        if _fits(found, run):
            return found
        say(f"{source} was prepared for another model, and is prepared again for this one")
    shape = run.model.config
    config = resolve_prepare_config(config, shape.image_size).model_copy(
        update={
            "image_size": shape.image_size,
            "max_tokens": shape.max_tokens,
            "tokenizer": EarlierRun(storage.absolute(path)).tokenizer_folder(),
            "attribute_columns": tuple(dict.fromkeys([*config.attribute_columns, *attributes])),
        }
    )
    origin = Origin.of(open_with_files(source, config), config, keep_rejected=False)
    out = prepared_path(source, origin, storage.join(path, RESULTS))
    if is_prepared(out):
        say(f"prepared set: {out} (as it was)")
    else:
        with Stages("records") as stages:
            prepare(source, out, config, on_progress=partial(stages.advance, "prepare"))
        say(f"prepared set: {out}")
    prepared = PreparedSet.open(out)
    counts = prepared.manifest.counts
    if 2 * counts.cut_texts > counts.accepted:
        say(
            f"{counts.cut_texts:,} of {counts.accepted:,} texts are longer than the {shape.max_tokens} pieces that the "
            "model reads, and are cut"
        )
    return prepared


def _fits(prepared: PreparedSet, run: LoadedRun) -> bool:
    shape, manifest = run.model.config, prepared.manifest
    same_size = (manifest.image.size, manifest.text.max_tokens) == (shape.image_size, shape.max_tokens)
    return same_size and prepared.tokenizer().tokenizer.get_vocab() == run.tokenizer.tokenizer.get_vocab()
