"""`mlim-ray evaluate` on a run with a small model: sets, leakage, skipped tasks, results and the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.evaluation.overlap import survey
from mlim_ray.evaluation.prepared_bench import make_bench
from mlim_ray.pipelines.prepare import prepare
from mlim_ray.training.loaded_run import load_run
from mlim_ray.training.untrained import untrained_twin
from tests.builders import IMAGE_SIZE, MAX_TOKENS
from tests.data.pictures import encoded, noise
from tests.model_folder import write_model
from tests.pipelines.test_prepare import configured

pytestmark = [pytest.mark.cluster]

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--no-dashboard", "--json", "--partner.num-records", "32", "--pictures.num-records", "2"]


def write_records(path: Path, first: int, num_rows: int, splits: dict[int, str], **changes: dict[int, Any]) -> Path:
    """Records of noise, every seventh of them of one title; `splits` by the remainder of ten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"k{i}",
            "image": encoded(noise(20, 20, i)),
            "text": "shirt number 7" if i % 7 == 0 else f"shirt number {i}",
            "label": f"label {i % 3}",
            "hue": ("red", "blue")[i % 2],
            "split": splits.get(i % 10, "train"),
        }
        | {name: values[i] for name, values in changes.items() if i in values}
        for i in range(first, first + num_rows)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A finished run: 140 training records, 20 of val and 40 of test, the last with a training record's picture."""
    folder = tmp_path_factory.mktemp("evaluate")
    run = write_model(folder / "run", [f"shirt number {i}" for i in range(200)])
    copied = {199: encoded(noise(20, 20, 1))}
    source = write_records(folder / "shop.parquet", 0, 200, {7: "val", 8: "test", 9: "test"}, image=copied)
    knobs = {"max_tokens": MAX_TOKENS, "tokenizer": str(run / "model"), "attribute_columns": ("hue",)}
    prepare(str(source), str(folder / "set"), configured(IMAGE_SIZE, **knobs))
    (run / "environment.json").write_text(json.dumps({"data": "the shop", "prepared": str(folder / "set")}))
    (run / "evaluation.json").write_text(json.dumps({"steps": 7}))
    (run / "report.html").write_text('<main><h2 id="pictures">P</h2></main>')
    return run


def evaluate(run: Path, *flags: str, refused: bool = False) -> Any:
    """The summary, or the one line that says why not."""
    command = [sys.executable, "-m", "mlim_ray.command_line.main", "evaluate", str(run), *QUICK, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if refused:
        assert done.returncode == 2, done.stdout
        return done.stderr.splitlines()[-1]
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_is_evaluated_on_its_own_set_and_on_others_side_by_side(run: Path) -> None:
    own = evaluate(run, "--tasks", "partner,pictures")
    assert own["source"] == "the shop" and own["records"] == {"train": 140, "val": 20, "test": 40}
    assert own["skipped"] == {} and list(own["tasks"]) == ["partner", "pictures"]
    test = own["overlap"]["result"]["splits"][1]
    assert test["num_trained"] == 0 and test["with_pretraining"] == test["with_training"]
    # Two of the test records have the common title, one has a picture of a training record.
    assert test["with_pretraining"] == {"titles": sum(i % 7 == 0 for i in range(200) if i % 10 > 7), "pictures": 1}
    assert own["tasks"]["partner"]["result"]["num_records"] == 32
    sheets = own["tasks"]["pictures"]["files"]
    assert len(sheets) == 3 and all((run / sheet).read_bytes().startswith(b"\x89PNG") for sheet in sheets)

    # Of these ten records that the model knows come back as test records.
    source = write_records(run.parent / "new.parquet", 150, 150, dict.fromkeys((0, 1, 2), "test") | {7: "val"})
    other = evaluate(run, "--tasks", "partner", "--on", str(source), "--attribute-columns", "hue")
    known = sum(i % 10 in (0, 1, 2) for i in range(150, 200))
    split = other["overlap"]["result"]["splits"][1]
    assert (split["num_records"], split["num_trained"]) == (45, known) and known == 15
    assert other["tasks"]["partner"]["result"]["num_records"] == 45 - known
    prepared = PreparedSet.open(other["prepared"])
    assert prepared.manifest.attributes == ("hue",) and Path(prepared.path).is_relative_to(run / "evaluation")
    assert (
        prepared.tokenizer().tokenizer.get_vocab()
        == PreparedSet.open(own["prepared"]).tokenizer().tokenizer.get_vocab()
    )

    before = Path(prepared.path, "manifest.json").stat().st_mtime_ns
    again = evaluate(run, "--tasks", "classification", "--on", str(source), "--attribute-columns", "hue", *_SHORT)
    assert Path(prepared.path, "manifest.json").stat().st_mtime_ns == before
    assert sorted(again["tasks"]) == ["classification", "partner"]
    assert again["tasks"]["partner"]["result"] == other["tasks"]["partner"]["result"]
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["steps"] == 7 and set(stored["evaluations"]) == {"the shop", str(source)}
    assert stored["evaluations"] == json.loads((run / "evaluation" / "results.json").read_text())
    page = (run / "report.html").read_text()
    assert page.count('id="evaluations"') == page.count('id="pictures"') == 1
    assert "the shop" in page and str(source) in page and "contact_sheet.png" in page


_SHORT = ["--classification.num-train", "60", "--classification.fine-tune.num-epochs", "0.5"]


def test_what_cannot_be_evaluated_is_one_plain_line(run: Path) -> None:
    line = evaluate(run, "--tasks", "pairs,partner", refused=True)
    assert line.startswith("--tasks pairs: the set has no groups of several records; name their column with")
    assert evaluate(run, "--tasks", "probe", refused=True).startswith(
        "--tasks: given probe, expected some of partner, "
    )
    assert "absent is no folder; name that of a run" in evaluate(run.parent / "absent", refused=True)
    source = write_records(run.parent / "one_split.parquet", 1_000, 30, {})
    assert "has no records in split val" in evaluate(run, "--tasks", "partner", "--on", str(source), refused=True)


@pytest.mark.usefixtures("local_ray")
def test_no_evaluation_is_given_a_record_that_the_model_was_trained_on(run: Path) -> None:
    source = write_records(
        run.parent / "mixed.parquet", 100, 200, dict.fromkeys(range(5), "test") | {7: "val", 6: "val"}
    )
    knobs = {"max_tokens": MAX_TOKENS, "tokenizer": str(run / "model")}
    prepare(str(source), str(run.parent / "mixed"), configured(IMAGE_SIZE, **knobs))
    mixed, own = PreparedSet.open(str(run.parent / "mixed")), PreparedSet.open(str(run.parent / "set"))
    trained = set(own.read("train", ["key"])["key"].to_pylist())
    found = survey(mixed, own)
    loaded = load_run(str(run))
    models = loaded, untrained_twin(str(run), loaded.model.config)
    bench = make_bench(*models, mixed, found, EvaluateConfig(), torch.device("cpu"), lambda what, done, total: None)
    for split, examples in (("val", bench.val), ("test", bench.test)):
        keys = set(mixed.read(split, ["key"])["key"].to_pylist())
        assert keys & trained and set(examples.keys) == keys - trained
        assert len(examples.records.key_hash_R) == len(examples.labels) == len(examples.texts) == len(examples.keys)
    titles = set(own.read("train", ["text"])["text"].to_pylist())
    assert bench.title_seen_R is not None
    assert bench.title_seen_R.tolist() == [text in titles for text in bench.test.texts]
    assert 0 < bench.title_seen_R.sum() < len(bench.test)
    with pytest.raises(ValueError, match="was not pre-trained on 0, expected 2 or more"):
        same = survey(own, own)
        nothing_new = type(same)(same.overlap, own.read("test", ["key_hash"])["key_hash"].to_numpy(), None)
        make_bench(*models, own, nothing_new, EvaluateConfig(), torch.device("cpu"), lambda *line: None)
