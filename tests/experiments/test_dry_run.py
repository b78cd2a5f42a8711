"""`--dry-run` of every experiment: the whole plan on the screen, nothing on disk, no Ray."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from mlim_ray.config import PretrainConfig
from mlim_ray.config.files import parse_config
from mlim_ray.data.manifest import manifest_sha256
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.training.build import build_model
from mlim_ray.training.export import export_model
from mlim_ray.training.init_from import start_run
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.run_folder import RunFolder
from tests.data.pictures import encoded, noise
from tests.experiments.loading import EXPERIMENTS, Main, load_main
from tests.prepared_sets import write_unfilled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=EXPERIMENTS, ids=lambda path: path.stem)
def experiment(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(params=[path for path in EXPERIMENTS if path.stem != "transfer"], ids=lambda path: path.stem)
def one_size(request: pytest.FixtureRequest) -> Path:
    """An experiment whose models are all of one size, so that they can share a set or a start."""
    path: Path = request.param
    return path


@pytest.fixture(params=[path for path in EXPERIMENTS if path.stem not in ("transfer", "compare_recipes")])
def one_model(request: pytest.FixtureRequest) -> Path:
    """An experiment whose models are all of the same parts, so that they can share a start."""
    path: Path = request.param
    return path


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs leave their results below the current folder: an empty one, so that nothing can hide."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set as far as a plan reads it: the manifest and the tokenizer of 300 generated records."""
    return write_unfilled(tmp_path_factory.mktemp("sets") / "prepared", "generated:300", vocabulary_size=200)


def plan_of(out: str) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """The config, the lines after it by their first word, and the summary, of what a `--dry-run --json` printed."""
    *lines, summary = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("records: "))
    config = yaml.safe_load("\n".join(lines[:first]))
    # Of the source, and told from its content each time that it is opened.
    assert config["prepare"].pop("format") == "auto"
    return config, dict(line.split(": ", 1) for line in lines[first:]), json.loads(summary)


def autos(values: Any) -> list[Any]:
    """All that is still left open in a config, but for the form of the source, which is told whenever it is opened."""
    if isinstance(values, dict):
        return [found for name, value in values.items() if name != "format" for found in autos(value)]
    return [values] if values == "auto" else []


def refused(capsys: pytest.CaptureFixture[str], main: Main, *argv: str) -> str:
    """The one line on standard error that a dry run ends with; nothing was started or printed."""
    with pytest.raises(SystemExit) as left:
        main([*argv, "--dry-run"])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == ""
    assert err.endswith("\n") and err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == [] and not ray.is_initialized()
    return err[:-1]


def write_table(path: Path, **columns: list[Any] | pa.Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.slow
def test_a_plan_from_a_real_command_line(experiment: Path, empty_folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(experiment), "--data", "generated:300", "--dry-run", "--json"],
        cwd=empty_folder,
        env=environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "RAY_TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    config, lines, summary = plan_of(done.stdout)
    assert autos(config) == [] and config["model"]["size"] in ("tiny", "base")
    assert lines["records"].startswith("300 in generated:300")
    assert lines["output"] == summary["out"] == f"runs/{experiment.stem}-001"
    assert summary["dry_run"] is True
    # Ray leaves its session and its logs there when it starts.
    assert list(empty_folder.iterdir()) == [] and list(temporary.glob("ray*")) == []


def test_a_plan_of_a_prepared_set(
    one_size: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    argv = ["--data", str(prepared), "--out", out, "--model.size", "tiny", "--seed", "7", "--json", "--dry-run"]
    assert load_main(one_size)(argv) == 0
    config, lines, summary = plan_of(capsys.readouterr().out)
    assert autos(config) == []
    assert (config["train"]["seed"], config["prepare"]["vocabulary_size"]) == (7, 200)
    manifest = json.loads((prepared / "manifest.json").read_text())
    num_train = manifest["splits"]["train"]["num_records"]
    assert lines["records"].startswith(f"300 in {prepared} (train {num_train}, val ")
    assert summary["num_train_records"] == num_train
    # The vocabulary decides: 3,000 words would be another 358 thousand parameters.
    (num_parameters,) = re.findall(r"tiny, ([\d,]+) parameters, 32 px", lines["model"])
    assert 600_000 < int(num_parameters.replace(",", "")) < 800_000
    assert re.search(r"= \d+ CPU, \d+ GPU$", lines["workers"]) and "left for Ray Data" in lines["cluster"]
    assert lines["output"] == summary["out"] == out and not Path(out).exists()


def test_two_sizes_of_a_model_are_refused_a_set_of_one(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, load_main(ROOT / "experiments" / "transfer.py"), "--data", str(prepared))
    assert line.startswith(f"{prepared} holds pictures of 32 pixels and --model.size small takes 112")


def test_cells_of_several_sources(capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "compare_masking.py")
    flags = ["--compare.arms", "mam,independent-50", "--steps", "70", "--dry-run", "--json"]
    assert main(["--data", "generated:300,generated:301", *flags]) == 0
    _, lines, summary = plan_of(capsys.readouterr().out)
    assert lines["cells"] == "2 x 2 settings x 3 seeds = 12 runs of 70 steps" and summary["num_cells"] == 12
    assert lines["parts"] == "on generated:300; on generated:301"
    for data, problem in (
        ("generated:300,generated:300", "expected one source or several different ones"),
        ("generated:300,", "expected one source or several different ones"),
        ("generated:300,absent/", "absent/ does not exist"),
    ):
        assert problem in refused(capsys, main, "--data", data)
    assert "--tasks: given poetry" in refused(capsys, main, "--data", "generated:300", "--tasks", "poetry")
    assert "--workers: given 2, expected 1" in refused(capsys, main, "--data", "generated:300", "--workers", "2")


def test_the_steps_of_a_run(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "pretrain.py")
    main(["--data", str(prepared), "--model.size", "tiny", "--steps", "70", "--dry-run", "--json"])
    config, lines, summary = plan_of(capsys.readouterr().out)
    num_train = summary["num_train_records"]
    epoch_steps = -(-num_train // 64)
    samples = 70 // epoch_steps * num_train + 70 % epoch_steps * 64
    assert lines["steps"] == f"70 of 64 records = {samples:,} records"
    assert (config["train"]["num_steps"], summary["steps"]) == (70, 70)
    assert config["feed"]["kind"] == "stream"


def test_the_steps_of_a_search_follow_from_its_samples(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "tune_mam.py")
    flags = ["--trials", "5", "--max-samples", "640", "--dry-run", "--json"]
    main(["--data", str(prepared), "--model.size", "tiny", *flags])
    config, lines, summary = plan_of(capsys.readouterr().out)
    num_train, epoch_steps = summary["num_train_records"], -(-summary["num_train_records"] // 64)
    samples = [step // epoch_steps * num_train + step % epoch_steps * 64 for step in range(20)]
    num_steps = next(step for step, seen in enumerate(samples) if seen >= 640)
    assert config["train"]["num_steps"] == summary["steps"] == num_steps
    assert lines["trials"].startswith(f"5 of at most {num_steps} steps, compared at ")
    assert lines["trials"].endswith("640 records")
    assert config["feed"]["kind"] == "resident"


def test_a_search_streams_what_does_not_fit_into_memory(capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "tune_mam.py")
    source = ["--data", "generated:9000000", "--model.size", "tiny"]
    main([*source, "--dry-run", "--json"])
    assert plan_of(capsys.readouterr().out)[0]["feed"]["kind"] == "stream"
    assert "--feed resident: the decoded training split takes" in refused(capsys, main, *source, "--feed", "resident")


def test_the_next_free_run_is_named_and_not_taken(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Path("runs") / f"{experiment.stem}-004").mkdir(parents=True)
    load_main(experiment)(["--data", "generated:300", "--dry-run"])
    assert f"output: runs/{experiment.stem}-005\n" in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == [f"{experiment.stem}-004"]


def test_sources_that_cannot_be(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(experiment)
    pictures, texts = [encoded(noise())] * 3, ["a red shirt"] * 3
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    no_text = write_table(tmp_path / "no_text.parquet", image=pictures, price=[1, 2, 3])
    no_image = write_table(tmp_path / "no_image.parquet", text=texts, price=[1, 2, 3])
    no_rows = write_table(tmp_path / "no_rows.parquet", image=pa.array([], pa.binary()), text=pa.array([], pa.string()))
    for source, problem in (
        (str(missing), f"{missing} does not exist; expected a Parquet file or folder"),
        (str(empty), f"{empty} holds no files"),
        (
            str(no_text),
            "text; name it with --text-column NAME or --text TEMPLATE. Columns: image (binary), price (int64)",
        ),
        (str(no_image), "looks like a picture (bytes, a struct of bytes, or a path); name it with --image-column NAME"),
        (str(no_rows), f"{no_rows} holds no records"),
        ("generated:none", "generated:"),
    ):
        assert problem in refused(capsys, main, "--data", source)


def test_a_set_that_does_not_fit_the_model(one_size: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, load_main(one_size), "--data", str(prepared), "--model.size", "base")
    assert line.startswith(f"{prepared} holds pictures of 32 pixels and --model.size base takes ")
    assert "mlim-ray prepare --image-size" in line


def test_a_set_without_records_of_a_split(experiment: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = prepared.parent / "no_val"
    other.mkdir(exist_ok=True)
    manifest = json.loads((prepared / "manifest.json").read_text())
    manifest["splits"]["val"]["num_records"] = 0
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert f"{other} has no records in split val" in refused(capsys, load_main(experiment), "--data", str(other))


def test_workers_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "pretrain.py")
    num_lanes = 60 * (os.cpu_count() or 1)
    wide = ["--feed.num-lanes", str(num_lanes), "--train.batch-size", str(num_lanes)]
    line = refused(capsys, main, "--data", "generated:300", "--workers", str(num_lanes), *wide)
    assert line.startswith(f"{num_lanes} workers ") and "use " in line and "--workers" in line
    line = refused(capsys, main, "--data", "generated:300", "--workers", "4", "--feed.num-lanes", "3")
    assert (
        line.startswith("--workers: given 4, expected at most 3, the lanes of the feed") and "--feed.num-lanes" in line
    )


def test_folders_that_cannot_be_taken(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(experiment)
    run, other = tmp_path / "run", tmp_path / "other"
    for folder, name, content in ((run, "config.yaml", "train: {}\n"), (other, "thesis.txt", "precious")):
        folder.mkdir()
        (folder / name).write_text(content)
    data = ("--data", "generated:300")
    line = refused(capsys, main, *data, "--out", str(run))
    assert line.startswith(f"{run} holds a run that is unfinished") and "--resume" in line and "--overwrite" in line
    assert "holds files that are no run of ours" in refused(capsys, main, *data, "--out", str(other), "--overwrite")
    absent = tmp_path / "absent"
    assert f"--resume: {absent} holds no run" in refused(capsys, main, *data, "--out", str(absent), "--resume")
    assert main([*data, "--out", str(run), "--overwrite", "--dry-run"]) == 0
    assert (run / "config.yaml").read_text() == "train: {}\n" and not absent.exists()


def test_a_run_is_not_resumed_with_another_knob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_main(ROOT / "experiments" / "pretrain.py")
    run = tmp_path / "run"
    main(["--data", "generated:300", "--model.size", "tiny", "--steps", "50", "--dry-run"])
    planned = capsys.readouterr().out
    run.mkdir()
    (run / "config.yaml").write_text(planned[: planned.index("\nrecords: ")])
    (run / "environment.json").write_text(json.dumps({"data": "generated:300"}))
    assert main(["--out", str(run), "--resume", "--dry-run"]) == 0
    assert "steps: 50 of 64 records" in capsys.readouterr().out
    line = refused(capsys, main, "--out", str(run), "--resume", "--steps", "60")
    assert line.startswith("--train.num-steps: ") and "started with 50" in line and "with 60" in line


@pytest.fixture(scope="module")
def earlier(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as far as another one starts from it: its model folder."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    opened = PreparedSet.open(str(prepared))
    config = resolve_size(PretrainConfig.model_validate({"model": {"size": "tiny"}}), has_gpu=False)
    export_model(build_model(config, opened), opened, str(run / "model"))
    return run


def test_a_source_is_to_be_split_by_the_tokenizer_of_the_run_that_is_started_from(
    one_model: Path, prepared: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_main(one_model)
    start = ["--init-from", str(earlier), "--model.size", "tiny", "--dry-run", "--json"]
    assert main(["--data", "generated:120", *start]) == 0
    config, lines, _ = plan_of(capsys.readouterr().out)
    assert config["prepare"]["tokenizer"] == f"{earlier}/model" and config["model"]["init_from"] == str(earlier)
    (num_parameters,) = re.findall(r"tiny, ([\d,]+) parameters", lines["model"])
    assert main(["--data", str(prepared), *start]) == 0
    config, lines, _ = plan_of(capsys.readouterr().out)
    # A set has its own; here it is the same.
    assert config["prepare"]["tokenizer"] is None and f"tiny, {num_parameters} parameters" in lines["model"]


def test_a_start_that_does_not_fit(
    one_model: Path, prepared: Path, earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_main(one_model)
    start = ("--init-from", str(earlier), "--data", "generated:120", "--model.size")
    line = refused(capsys, main, *start, "base")
    assert line.startswith(f"--init-from {earlier}: its model is of size tiny") and "use --model.size tiny" in line
    line = refused(capsys, main, *start, "tiny", "--prepare.max-tokens", "30")
    assert line.endswith("use --prepare.max-tokens 24")
    other = write_unfilled(tmp_path / "set", "generated:100", vocabulary_size=150)
    line = refused(capsys, main, *start, "tiny", "--prepare.tokenizer", str(other / "tokenizer"))
    assert "its vocabulary (200 pieces" in line and line.endswith("leave --prepare.tokenizer out")
    line = refused(capsys, main, *start[:2], "--data", str(other), "--model.size", "tiny")
    assert f"is not that of {other} (150 pieces)" in line and "mlim-ray prepare --tokenizer" in line
    line = refused(capsys, main, "--init-from", str(tmp_path / "absent"), "--data", "generated:120")
    assert "absent: holds neither a good checkpoint nor a model folder" in line


def test_what_is_started_from_is_not_overwritten(
    one_model: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (earlier / "config.yaml").write_text("{}\n")
    for start in (earlier, earlier / "model"):
        flags = ("--init-from", str(start), "--out", f"{earlier}/", "--overwrite", "--data", "generated:120")
        line = refused(capsys, load_main(one_model), *flags)
        assert line.startswith(f"--init-from: {start} lies in --out {earlier}/, which --overwrite would remove")


def test_a_run_that_has_begun_is_resumed_without_the_one_it_started_from(
    prepared: Path, earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_main(ROOT / "experiments" / "pretrain.py")
    run, gone = tmp_path / "run", tmp_path / "gone"
    shutil.copytree(earlier, gone)
    main(["--data", str(prepared), "--model.size", "tiny", "--init-from", str(gone), "--dry-run"])
    planned = capsys.readouterr().out
    run.mkdir()
    (run / "config.yaml").write_text(planned[: planned.index("\nrecords: ")])
    shas = {"data": str(prepared), "manifest_sha256": manifest_sha256(str(prepared))}
    (run / "environment.json").write_text(json.dumps(shas))
    config = resolve_size(parse_config((run / "config.yaml").read_bytes(), "run", PretrainConfig()), has_gpu=False)
    folder, opened = RunFolder(str(run)), PreparedSet.open(str(prepared))
    start_run(folder, config, opened)
    shutil.rmtree(gone)
    assert main(["--out", str(run), "--resume", "--dry-run"]) == 0
    capsys.readouterr()
    # Without its first checkpoint it would have to ask for it.
    shutil.rmtree(run / "checkpoints")
    assert "holds neither a good checkpoint" in refused(capsys, main, "--out", str(run), "--resume")
