"""The paper's claims on pairs: pre-train with several seeds, fine-tune with and without modality dropout, compare.

Every fine-tuning is a cell of its own, one JSON file in the run folder, so that a resumed run repeats none.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.config.files import config_text
from mlim_ray.config.overlay import with_knobs
from mlim_ray.config.pairs_run import PairsRunConfig
from mlim_ray.data.lease import Lease
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.sources.generated import PREFIX as GENERATED
from mlim_ray.data.synthetic import ATTRIBUTES
from mlim_ray.evaluation.examples import load_examples
from mlim_ray.evaluation.pair_baselines import frozen_baselines
from mlim_ray.evaluation.pair_products import FIRST_WORD, GROUP, LABEL
from mlim_ray.evaluation.pair_task import PairTask, Scores, make_task
from mlim_ray.evaluation.pairs import FROM_SCRATCH, PRE_TRAINED, Arm, arms_of, references_of, run_arm, summarise
from mlim_ray.evaluation.result import Cell
from mlim_ray.model import MlimModel
from mlim_ray.pipelines.cells import run_cells
from mlim_ray.pipelines.cluster import Cluster
from mlim_ray.pipelines.joined import joined
from mlim_ray.pipelines.measure import gpu_options
from mlim_ray.pipelines.plan import check_run, describe_run
from mlim_ray.pipelines.pretrain import EXPERIMENT as PRETRAIN
from mlim_ray.pipelines.pretrain import pretrain_within
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.setting import Setting, is_prepared, open_setting
from mlim_ray.reporting.progress import say
from mlim_ray.training.build import build_model
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.checkpoint_policy import CheckpointPolicy
from mlim_ray.training.run_folder import RunFolder, claim_folder

EXPERIMENT = "modality_dropout"
_MOST_RECORDS = 50_000
"""of each split that pairs are made of"""
_REFERENCES = "cells/references.json"
_KNOBS: dict[str, dict[str, object]] = {
    PRE_TRAINED: {},
    "MLM and ITM": {"recon.kind": "pixels", "recon.detached": True, "recon.weight": 1.0, "itm.weight": 1.0},
    "MLM and RECON and ITM": {"itm.weight": 1.0},
}
"""of each pre-training, by the name of the start that it gives"""
_NAMES = dict(zip(("recon", "itm", "recon+itm"), _KNOBS, strict=True))


@dataclass(frozen=True)
class _Cell:
    """One fine-tuning."""

    arm: Arm
    seed: int

    @property
    def file(self) -> str:
        """Its place in the run folder."""
        arm = self.arm
        dropout = "with" if arm.modality_dropout else "without"
        return f"cells/{_slug(arm.start)}_{arm.encoding}_{dropout}-dropout_seed-{self.seed}.json"


def compare_dropout(request: RunRequest[PairsRunConfig]) -> dict[str, Any]:
    """Pre-train, fine-tune and compare; gives the summary that `--json` prints.

    Raises:
        ValueError: the request cannot be met, or the set has no pairs.
    """
    for name in _pretrained(request.config):
        # As `pretrain` looks at it, before anything is started.
        CheckpointPolicy.of(_pretrain_config(request.config, name, request.config.train.seed))
    request = _with_attributes(request)
    if request.dry_run:
        return _describe(request)
    check_run(request, EXPERIMENT)
    folder = claim_folder(request.out, EXPERIMENT, resume=request.resume, overwrite=request.overwrite)
    if request.resume and folder.is_finished:
        say(f"{folder.path} is finished already")
        return _summary(folder)
    say(f"run folder: {folder.path}")
    resume = f"python experiments/modality_dropout.py --out {folder.path} --resume"

    def stopped() -> str:
        return f"stopped by SIGTERM; continue with: {resume}"

    with joined(request, folder, stopped) as cluster:
        setting = _begin(folder, request, cluster)
        task = _make_task(setting)
        for seed in _seeds(setting.config):
            for name in _pretrained(setting.config):
                _pretrain(cluster, folder, request, setting, name, seed, resume)
        _run_cells(folder, setting, task)
        _conclude(folder, setting.config, task)
    return _summary(folder)


def _with_attributes(request: RunRequest[PairsRunConfig]) -> RunRequest[PairsRunConfig]:
    """A source that is still to be prepared keeps the columns that products are told by; the generated catalogue all of
    its attributes, which make negatives hard."""
    config = request.config
    if is_prepared(request.data):
        return request
    wanted = [name for name in config.pairs.match if name not in (GROUP, LABEL, FIRST_WORD)]
    if request.data.startswith(GENERATED):
        wanted += [name for name in ATTRIBUTES if name != "category"]
    columns = tuple(dict.fromkeys((*config.prepare.attribute_columns, *wanted)))
    prepare = config.prepare.model_copy(update={"attribute_columns": columns})
    return replace(request, config=config.model_copy(update={"prepare": prepare}))


def _describe(request: RunRequest[PairsRunConfig]) -> dict[str, object]:
    config = request.config.pairs
    summary = describe_run(request, EXPERIMENT)
    num_cells = len(arms_of(_starts(request.config), config)) * config.num_seeds
    names = _pretrained(request.config)
    seeds = _in_words(list(_seeds(request.config)))
    say(f"pre-trainings: {config.num_seeds} as above, with the seeds {seeds}, of each of {', '.join(names)}")
    say(f"fine-tunings: {num_cells}, for at most {config.fine_tune.num_epochs:g} epochs of pairs each")
    return summary | {"num_pretrainings": config.num_seeds * len(names), "num_fine_tunings": num_cells}


def _begin(folder: RunFolder, request: RunRequest[PairsRunConfig], cluster: Cluster) -> Setting[PairsRunConfig]:
    """Decide what is open, prepare the source, and write down both."""
    setting = open_setting(request, cluster, folder, auto_feed="stream")
    folder.write_text("config.yaml", config_text(setting.config))
    environment = setting.environment(request, num_workers=request.num_workers, threads_per_worker=1)
    folder.write_json("environment.json", environment)
    return setting


def _make_task(setting: Setting[PairsRunConfig]) -> PairTask:
    prepared = setting.prepared
    prepared.require("train", "test")
    train, test = (load_examples(prepared, split, _MOST_RECORDS) for split in ("train", "test"))
    return make_task(train, test, prepared.tokenizer(), setting.config.pairs, setting.config.probe.seed)


def _pretrain(
    cluster: Cluster,
    folder: RunFolder,
    request: RunRequest[PairsRunConfig],
    setting: Setting[PairsRunConfig],
    name: str,
    seed: int,
    resume: str,
) -> None:
    """The pre-training run of a start and a seed, in a folder of its own, unless it is finished."""
    out = _pretrain_folder(folder, name, seed)
    if out.is_finished:
        return
    say(f"pre-training: {name}, seed {seed}")
    run = RunRequest(
        config=_pretrain_config(setting.config, name, seed),
        data=setting.prepared.path,
        out=out.path,
        address=request.address,
        num_workers=request.num_workers,
        resume=out.exists,
        overwrite=False,
        dry_run=False,
        json=False,
        dashboard=request.dashboard,
        min_workers=request.min_workers,
    )
    claim_folder(out.path, PRETRAIN, resume=out.exists, overwrite=False)
    with Lease(out.path):
        pretrain_within(cluster, out, run, resume)


def _run_cells(folder: RunFolder, setting: Setting[PairsRunConfig], task: PairTask) -> None:
    """Run the cells that have no file yet, as many at a time as there are CPUs or GPUs."""
    config = setting.config
    there, shared = RunFolder(folder.anywhere), ray.put(task)
    options = gpu_options(1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1.0 else 0.0)
    given = (config, setting.prepared, there, shared)
    cells: dict[str, Callable[[], ray.ObjectRef[dict[str, Any]]]] = {
        cell.file: partial(_run_cell.options(**options, name=f"fine-tune {cell.arm.name}").remote, *given, cell)
        for cell in _cells(config)
    }
    cells[_REFERENCES] = partial(_refer.options(**options, name="references of pairs").remote, *given)
    run_cells(folder, cells, "pairs", "fine-tunings")


@ray.remote(num_cpus=1)
def _run_cell(
    config: PairsRunConfig, prepared: PreparedSet, folder: RunFolder, task: PairTask, cell: _Cell
) -> dict[str, Any]:
    """The scores of the test pairs after one fine-tuning."""
    torch.set_num_threads(1)
    start = _start(config, prepared, folder, cell.arm.start, cell.seed)
    scores = run_arm(task, start, cell.arm, config.pairs, cell.seed)
    return {"arm": asdict(cell.arm), "seed": cell.seed, "scores": _as_lists(scores)}


@ray.remote(num_cpus=1)
def _refer(config: PairsRunConfig, prepared: PreparedSet, folder: RunFolder, task: PairTask) -> dict[str, Any]:
    """The scores of the test pairs by all that is not fine-tuned; encoders are those of the first seed."""
    torch.set_num_threads(1)
    first = next(iter(_seeds(config)))
    references = frozen_baselines(
        task, _start(config, prepared, folder, _pretrained(config)[0], first), "frozen encoder"
    )
    references |= references_of(task, _start(config, prepared, folder, FROM_SCRATCH, first))
    return {name: _as_lists(scores) for name, scores in references.items()}


def _start(config: PairsRunConfig, prepared: PreparedSet, folder: RunFolder, name: str, seed: int) -> MlimModel:
    """The model that a cell starts from: the last weights of its seed's pre-training, or those it began with."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(_pretrain_config(config, name, seed), prepared, device)
    if name != FROM_SCRATCH:
        checkpoints = _pretrain_folder(folder, name, seed).file("checkpoints")
        checkpoint, refused = CheckpointStore(checkpoints).latest()
        if checkpoint is None:
            raise ValueError("; ".join([f"{checkpoints} holds no checkpoint to start from", *map(str, refused)]))
        model.load_state_dict(checkpoint.weights)
    return model


def _conclude(folder: RunFolder, config: PairsRunConfig, task: PairTask) -> None:
    """Tables and verdict from the files of all cells."""
    runs: dict[Arm, list[Scores]] = {}
    for cell in _cells(config):
        runs.setdefault(cell.arm, []).append(_as_scores(folder.read_json(cell.file)["scores"]))
    references = {name: _as_scores(scores) for name, scores in folder.read_json(_REFERENCES).items()}
    result = summarise(task, runs, references)
    for shown in result.tables():
        say(f"{shown.title}: {shown.caption}")
        for row in shown.rows:
            say("; ".join(f"{name} {_cell_text(value)}" for name, value in row.items()))
    for sentence in result.verdict():
        say(sentence)
    folder.write_json("evaluation.json", {**asdict(result), "verdict": result.verdict()})


def _summary(folder: RunFolder) -> dict[str, Any]:
    evaluation = folder.read_json("evaluation.json")
    return {"out": folder.path, "pairs": evaluation, "verdict": evaluation["verdict"]}


def _seeds(config: PairsRunConfig) -> range:
    first = config.train.seed
    return range(first, first + config.pairs.num_seeds)


def _pretrained(config: PairsRunConfig) -> list[str]:
    """Names of the starts that are pre-trained."""
    return [_NAMES[arm] for arm in config.starts.arms]


def _starts(config: PairsRunConfig) -> dict[str, None]:
    return dict.fromkeys([*_pretrained(config), *([FROM_SCRATCH] if config.pairs.from_scratch else [])])


def _cells(config: PairsRunConfig) -> Iterator[_Cell]:
    """All of them; those of one seed come together, so that an early stop leaves whole comparisons."""
    for seed in _seeds(config):
        for arm in arms_of(_starts(config), config.pairs):
            yield _Cell(arm, seed)


def _pretrain_folder(folder: RunFolder, name: str, seed: int) -> RunFolder:
    start = "" if name == PRE_TRAINED else f"-{_slug(name)}"
    return RunFolder(folder.file(f"pretrain{start}-seed-{seed}"))


def _pretrain_config(config: PairsRunConfig, name: str, seed: int) -> PretrainConfig:
    values = config.model_dump(include=set(PretrainConfig.model_fields))
    values["train"]["seed"] = seed
    return with_knobs(PretrainConfig.model_validate(values), _KNOBS.get(name, {}))


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _as_lists(scores: Scores) -> dict[str, list[float]]:
    return {shown: np.round(score_P, 6).tolist() for shown, score_P in scores.items()}


def _as_scores(lists: dict[str, list[float]]) -> Scores:
    return {shown: np.array(values) for shown, values in lists.items()}


def _cell_text(value: Cell) -> Any:
    if value is None:
        return "-"
    if isinstance(value, str | int | float):
        return value
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def _in_words(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
