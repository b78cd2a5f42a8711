"""Starting from an earlier run: which weights are taken, and what is refused because they would not fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mlim_ray.config import PretrainConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.model import MlimConfig, MlimModel
from mlim_ray.training.build import build_model
from mlim_ray.training.checkpoint import CheckpointStore
from mlim_ray.training.earlier_run import EarlierRun
from mlim_ray.training.export import export_model
from mlim_ray.training.init_from import (
    fit_start,
    has_begun,
    load_start_of_trials,
    start_run,
    start_trials,
)
from mlim_ray.training.run_folder import RunFolder
from tests.prepared_sets import write_unfilled

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    out = write_unfilled(tmp_path_factory.mktemp("sets") / "prepared", "generated:200", vocabulary_size=200)
    return PreparedSet.open(str(out))


def config_for(init_from: Path | None = None, *, size: str = "tiny", seed: int = 0, **prepare: Any) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "model": {"size": size, "init_from": None if init_from is None else str(init_from)},
            "train": {"learning_rate": 1e-3, "precision": "float32", "seed": seed},
            "prepare": {"image_size": 32, **prepare},
        }
    )


def model_of(prepared: PreparedSet, seed: int) -> MlimModel:
    return build_model(config_for(seed=seed), prepared)


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def earlier(tmp_path: Path, prepared: PreparedSet) -> Path:
    """An unfinished run with checkpoints of steps 5 and 10, of the weights of seeds 5 and 10."""
    run = RunFolder(str(tmp_path / "earlier"))
    run.write_json("environment.json", {"prepared": prepared.path})
    for step in (5, 10):
        run.checkpoints().save(step, model_of(prepared, seed=step).state_dict(), {"step": step})
    return tmp_path / "earlier"


def finish(run: Path, prepared: PreparedSet, seed: int = 20) -> None:
    export_model(model_of(prepared, seed), prepared, str(run / "model"))


def damage(run: Path, step: int) -> None:
    path = run / "checkpoints" / f"step-{step:08d}" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_the_newest_good_checkpoint_comes_before_the_model(earlier: Path, prepared: PreparedSet) -> None:
    finish(earlier, prepared)
    run = EarlierRun(str(earlier))
    for step in (10, 5):
        found = run.weights()
        assert found.step == step and same(found.weights, model_of(prepared, step).state_dict())
        damage(earlier, step)
    found = run.weights()
    assert found.step is None and same(found.weights, model_of(prepared, 20).state_dict())


def test_a_model_folder_alone_will_do(tmp_path: Path, prepared: PreparedSet) -> None:
    # As a search leaves it, or as it was copied out of a run.
    finish(tmp_path / "search", prepared)
    for path in (tmp_path / "search", tmp_path / "search" / "model"):
        run = EarlierRun(str(path))
        assert same(run.weights().weights, model_of(prepared, 20).state_dict())
        assert run.tokenizer_folder() == str(tmp_path / "search" / "model")
        fit_start(run, config_for(path), prepared)


def test_shapes_are_read_from_the_head_alone(earlier: Path, prepared: PreparedSet) -> None:
    expected = {name: tuple(weight.shape) for name, weight in model_of(prepared, 0).state_dict().items()}
    weights = [earlier / "checkpoints" / f"step-{step:08d}" / "model.safetensors" for step in (10, 5)]
    head = int.from_bytes(weights[0].read_bytes()[:8], "little")
    weights[0].write_bytes(weights[0].read_bytes()[: 8 + head])
    assert EarlierRun(str(earlier)).shapes() == expected
    # A head that is no head is passed over, as the checkpoint will be.
    for spoilt in (b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{]", b"\x02" + b"\0" * 7 + b"[]"):
        weights[0].write_bytes(spoilt)
        assert EarlierRun(str(earlier)).shapes() == expected
    weights[1].unlink()
    with pytest.raises(ValueError, match="holds neither a good checkpoint nor a model folder"):
        EarlierRun(str(earlier)).shapes()


def test_a_run_starts_at_step_0_with_these_weights_and_its_own_schedule(
    earlier: Path, prepared: PreparedSet, tmp_path: Path
) -> None:
    folder = RunFolder(str(tmp_path / "new"))
    config = config_for(earlier, seed=3)
    assert not has_begun(folder)
    assert start_run(folder, config, prepared) == f"start: the weights of {earlier}, checkpoint of step 10"
    shutil.rmtree(earlier)
    assert has_begun(folder)
    checkpoint = folder.checkpoints().latest().checkpoint
    assert checkpoint is not None and checkpoint.step == checkpoint.trainer_state["step"] == 0
    assert same(checkpoint.weights, model_of(prepared, 10).state_dict())
    assert checkpoint.trainer_state["optimiser"]["state"] == {}


def test_all_trials_start_with_the_same_weights(earlier: Path, prepared: PreparedSet, tmp_path: Path) -> None:
    folder, config = RunFolder(str(tmp_path / "search")), config_for(earlier)
    start_trials(folder, config, prepared)
    # The search has no checkpoint of its own: whoever starts from it gets its winner, not what it started from.
    assert has_begun(folder) and folder.checkpoints().steps() == []
    shutil.rmtree(earlier)
    model = model_of(prepared, 1)
    load_start_of_trials(model, folder)
    assert same(model.state_dict(), model_of(prepared, 10).state_dict())
    (Path(folder.path) / "start" / "step-00000000" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="has lost the weights that it was to start from"):
        load_start_of_trials(model, folder)


def test_the_same_weights_have_the_same_digest_wherever_they_lie(prepared: PreparedSet, tmp_path: Path) -> None:
    found = []
    for name, seed in (("checkpoint", 20), ("model", 20), ("other", 21)):
        run = tmp_path / name
        if name == "checkpoint":
            CheckpointStore(str(run / "checkpoints")).save(7, model_of(prepared, seed).state_dict(), {})
        else:
            finish(run, prepared, seed)
        folder = RunFolder(str(tmp_path / f"new-{name}"))
        start_run(folder, config_for(run), prepared)
        found.append(json.loads((Path(folder.path) / "start.json").read_text()))
    assert [(start["run"], start["step"]) for start in found] == [
        (str(tmp_path / name), step) for name, step in (("checkpoint", 7), ("model", None), ("other", None))
    ]
    digests = [start["sha256"] for start in found]
    assert digests[0] == digests[1] != digests[2]


def refusal(earlier: Path, config: PretrainConfig, prepared: PreparedSet | None) -> str:
    with pytest.raises(ValueError) as refused:
        fit_start(EarlierRun(str(earlier)), config, prepared)
    line = str(refused.value)
    assert line.startswith(f"--init-from {earlier}: ")
    return line


def test_what_fits_is_taken_with_the_tokenizer_where_one_is_needed(earlier: Path, prepared: PreparedSet) -> None:
    config, tokenizer = config_for(earlier), f"{prepared.path}/tokenizer"
    assert fit_start(EarlierRun(str(earlier)), config, prepared) == config
    expected = config_for(earlier, tokenizer=tokenizer)
    assert fit_start(EarlierRun(str(earlier)), config, None) == expected
    assert fit_start(EarlierRun(str(earlier)), expected, None) == expected


def test_another_size_is_refused(earlier: Path, prepared: PreparedSet) -> None:
    line = refusal(earlier, config_for(earlier, size="base", image_size=224), None)
    assert "its model is of size tiny (32 px, width 128, 3 layers) and --model.size is base (224 px, width 768" in line
    assert line.endswith("use --model.size tiny, or start from another run")


@pytest.mark.parametrize(
    ("shape", "named"),
    [({"image_size": 64}, "cell_positions has shape (64, 128)"), ({"num_hidden_layers": 4}, "encoder.layers.3")],
)
def test_a_model_of_another_picture_size_or_depth_is_refused(
    shape: dict[str, Any], named: str, prepared: PreparedSet, tmp_path: Path
) -> None:
    model = MlimModel(MlimConfig(vocab_size=prepared.tokenizer().vocab_size, **shape))
    export_model(model, prepared, str(tmp_path / "odd" / "model"))
    line = refusal(tmp_path / "odd", config_for(), prepared)
    assert "its model is of none of the sizes tiny, small, base, large: " in line and named in line
    assert "--model.size tiny (32 px, width 128, 3 layers)" in line


def test_another_vocabulary_is_refused_even_of_the_same_size(
    earlier: Path, prepared: PreparedSet, tmp_path: Path
) -> None:
    other = PreparedSet.open(str(write_unfilled(tmp_path / "other", "generated:100", vocabulary_size=150)))
    line = refusal(earlier, config_for(earlier), other)
    assert f"its vocabulary (200 pieces, {prepared.path}/tokenizer) is not that of {other.path} (150 pieces)" in line
    assert line.endswith(f"prepare the source again with mlim-ray prepare --tokenizer {prepared.path}/tokenizer")
    swapped = Path(shutil.copytree(prepared.path, tmp_path / "swapped"))
    path = swapped / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    pieces = content["model"]["vocab"]
    first, last = list(pieces)[-2:]
    pieces[first], pieces[last] = pieces[last], pieces[first]
    path.write_text(json.dumps(content))
    line = refusal(earlier, config_for(earlier), PreparedSet.open(str(swapped)))
    assert f"is not that of {swapped} (200 pieces)" in line
    line = refusal(earlier, config_for(earlier, tokenizer=f"{swapped}/tokenizer"), None)
    assert f"is not that of {swapped}/tokenizer" in line and line.endswith("leave --prepare.tokenizer out")


def test_another_length_of_texts_is_refused(earlier: Path, prepared: PreparedSet, tmp_path: Path) -> None:
    tokenizer = f"{prepared.path}/tokenizer"
    line = refusal(earlier, config_for(earlier, max_tokens=32), None)
    assert line.endswith(
        "its model takes texts of 24 pieces and --prepare.max-tokens is 32; use --prepare.max-tokens 24"
    )
    longer = PreparedSet.open(
        str(write_unfilled(tmp_path / "longer", "generated:200", vocabulary_size=200, max_tokens=32))
    )
    line = refusal(earlier, config_for(earlier), longer)
    assert f"takes texts of 24 pieces and {longer.path} holds texts of up to 32" in line
    assert line.endswith(f"mlim-ray prepare --max-tokens 24 --tokenizer {tokenizer}")


def test_a_run_without_weights_or_tokenizer_is_refused(earlier: Path, prepared: PreparedSet, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds neither a good checkpoint nor a model folder" in refusal(empty, config_for(), prepared)
    (empty / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"{}")
    assert "is of none of the sizes" in refusal(empty, config_for(), prepared)
    (earlier / "environment.json").write_text(json.dumps({"prepared": str(tmp_path / "removed")}))
    line = refusal(earlier, config_for(), prepared)
    assert "its tokenizer is not to be found" in line and "restore its set" in line
    finish(earlier, prepared)
    fit_start(EarlierRun(str(earlier)), config_for(earlier), prepared)


def test_a_damaged_model_is_named(tmp_path: Path, prepared: PreparedSet) -> None:
    finish(tmp_path / "run", prepared)
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"{]")
    for read in (EarlierRun.shapes, EarlierRun.weights):
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path}/run/model/model.safetensors is ")):
            read(EarlierRun(str(tmp_path / "run")))
