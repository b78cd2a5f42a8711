"""Every command that the pages show, run: experiments as a dry run, make without doing, the rest as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore import xform_name

from mlim_ray.config import PretrainConfig
from mlim_ray.config.files import best_text
from mlim_ray.data.prepared import PreparedSet
from mlim_ray.data.synthetic import generate
from mlim_ray.training.build import build_model
from mlim_ray.training.export import export_model
from mlim_ray.training.resolve import resolve_size
from tests.cluster.filled import filled_project
from tests.data.pictures import encoded, noise
from tests.data.source_forms import FORMS, some_items
from tests.experiments.loading import EXPERIMENTS, load_main
from tests.made_runs import run_config, train_run
from tests.pipelines.test_prepare import write_source
from tests.prepared_sets import write_unfilled

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("sh", "bash", "console")

GENERATED = "generated:300"
BEST = "best.yaml"
STAND_INS = {
    "my_catalogue/": GENERATED,
    "prepared/": GENERATED,
    "runs/tune_mam-001/best.yaml": BEST,
    "s3://shop/catalogue": GENERATED,
    "s3://shop/sets/catalogue": GENERATED,
    "s3://shop/runs/first": "runs/first",
    "s3://my-bucket/shards/": "shards/",
    "s3://shop/embeddings": "embeddings",
    "s3://my-models/mlim/catalogue": GENERATED,
    "s3://my-models/mlim/runs/first": "runs/first",
    "s3://cluster/mlim/raw": GENERATED,
    "s3://cluster/mlim/runs/first": "runs/first",
}
"""What a page names and a clone has not: a reader's own records, and what an earlier command on the page wrote."""
SET_STAND_INS = {"my_catalogue/": "grown", "prepared/": "set"}
"""For commands that go on with a set: its source, grown, and the set itself."""
NUM_ITEMS = 24

SMALL_BUDGETS = [
    *("--partner.num-records", "32", "--pictures.num-records", "2", "--retrieval.num-records", "20"),
    *("--classification.fine-tune.num-epochs", "0.2", "--retrieval.contrastive.num-epochs", "0.2"),
    *("--pairs.fine-tune.num-epochs", "0.2", "--pairs.num-seeds", "2", "--pairs.num-train-positives", "20"),
]
"""What every evaluation of a page is run with, beside its own flags."""

NOT_RUN = {
    ("git", "clone"): "needs the network",
    ("cd",): "a reader's own place",
    ("optuna-dashboard",): "serves until it is ended; tests/pipelines/test_search_storage.py asks it",
    ("mlim-ray", "demo"): "serves until it is ended; tests/reporting/test_demo_in_a_browser.py opens its page",
    ("mlflow", "server"): "serves until it is ended; tests/pipelines/search/test_mlflow_watch.py tells one of a search",
    ("ray", "up"): "starts machines that cost money",
    ("ray", "submit"): "needs a cluster",
    ("ray", "attach"): "needs a cluster",
    ("ray", "dashboard"): "needs a cluster",
    ("ray", "down"): "needs a cluster",
    ("prometheus",): "runs until it is stopped; tests/pipelines/test_watching.py starts it",
    ("tensorboard",): "runs until it is stopped",
    ("pip", "install"): "would change the environment that the tests run in",
    ("docker",): "needs a Docker daemon; tests/cluster/test_kuberay.py reads the Dockerfile",
    ("kubectl",): "needs Kubernetes; tests/cluster/test_kuberay.py reads the manifests",
}
AWS_SHORTHANDS = {"--protocol", "--source-group", "--port", "--cidr", "--query", "--output"}
"""flags of the AWS CLI that are no parameters of the request"""

_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"[|&;<>()$`]+")


@dataclass(frozen=True)
class Command:
    """One command of a page, as words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    @property
    def is_prepare(self) -> bool:
        return self.program == "mlim-ray" and self.words[1:2] == ("prepare",) and not self.uses_set

    @property
    def uses_set(self) -> bool:
        """Whether it goes on with what an earlier command on the page wrote."""
        going_on = self.words[1:2] in (("verify",), ("requeue",)) or "--append" in self.words
        return self.program == "mlim-ray" and going_on

    @property
    def uses_runs(self) -> bool:
        """Whether it reads runs that were made before."""
        readers = (("diff",), ("compare",), ("export-onnx",))
        asks = self.asks_model or (self.program == "mlim-ray" and self.words[1:2] in readers)
        return asks or "--init-from" in self.words

    @property
    def asks_model(self) -> bool:
        """Whether it shows records to a model on Ray."""
        return self.program == "mlim-ray" and self.words[1:2] in (("evaluate",), ("embed",), ("fill",))

    @property
    def needs_ray(self) -> bool:
        return self.is_prepare or self.uses_set or self.asks_model


def commands_in(text: str, page: str) -> Iterator[Command]:
    """The commands in a page's blocks; in a console block those after a prompt, the rest being output."""
    for language, block in _BLOCK.findall(text):
        if language not in LANGUAGES:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip()
            if language == "console":
                if not command.startswith("$ "):
                    continue
                command = command[2:]
            words = shlex.split(command, comments=True)
            if words:
                yield Command(page, tuple(words))


COMMANDS = [command for page in PAGES if page.exists() for command in commands_in(page.read_text(), page.name)]
PARAMETERS = [
    pytest.param(command, id=str(command), marks=[pytest.mark.cluster] if command.needs_ray else [])
    for command in COMMANDS
]


def run(command: Command) -> None:
    """Run a command in the current folder, which is empty but for the stand-ins; it has to end well."""
    stand_ins = SET_STAND_INS if command.uses_set else STAND_INS
    words = [stand_ins.get(word, word) for word in command.words[1:]]
    if any(_SHELL.fullmatch(word) for word in words):
        raise AssertionError(f"{command}: more than one command in a line; write one a line")
    for start, reason in NOT_RUN.items():
        if (command.program, *words)[: len(start)] == start:
            pytest.skip(reason)
    if command.program in ("python", "python3") and words[:1] and words[0].startswith("experiments/"):
        path = ROOT / words[0]
        assert path in EXPERIMENTS, f"{command}: there is no such experiment"
        assert load_main(path)([*words[1:], *([] if "--dry-run" in words else ["--dry-run"])]) == 0
    elif command.program in ("python", "python3") and words[:1] == ["-m"] and words[1].startswith("benchmarks."):
        # They take minutes each; tests/benchmarks runs them at a tiny size.
        known = shell([sys.executable, "-m", words[1], "--help"], ROOT)
        for flag in (word for word in words if word.startswith("--")):
            assert f"{flag} " in known or f"{flag}]" in known, f"{command}: {words[1]} has no {flag}"
    elif command.program == "ray" and words[:2] == ["job", "submit"]:
        run(Command(command.page, tuple(words[words.index("--") + 1 :])))
    elif command.program == "aws":
        check_aws(command)
    elif command.program == "mlim-ray" and words[0] == "doctor":
        with pytest.MonkeyPatch.context() as patch:
            project = filled_project(Path.cwd() / "ready", patch)
            shell([sys.executable, "-m", "mlim_ray.command_line.main", *words, "--offline"], project)
    elif command.program == "openssl":
        # It goes on with what the ones above it on its page wrote.
        for each in COMMANDS[: COMMANDS.index(command) + 1]:
            if (each.page, each.program) == (command.page, "openssl"):
                shell(list(each.words), Path.cwd())
    elif command.program == "make":
        shell(["make", "-n", *words], ROOT)
    elif command.program == "mlim-ray":
        # What prepare writes to is not there yet, whatever stands in for it when it is read.
        words = [*words[:2], "out", *words[3:]] if command.is_prepare else words
        words += SMALL_BUDGETS if words[0] == "evaluate" else []
        json_flag = [] if words[0] == "verify" else ["--json"]
        output = shell([sys.executable, "-m", "mlim_ray.command_line.main", *words, *json_flag], Path.cwd())
        if words[0] == "inspect":
            assert json.loads(output.splitlines()[-1])["reasons"] == {}, output
    else:
        raise AssertionError(f"{command}: not known to this test; teach it how to run {command.program}")


def check_aws(command: Command) -> None:
    """Its service, operation and flags are AWS's own, and the files that it names are there."""
    service, operation, *rest = command.words[1:]
    model = botocore.session.get_session().get_service_model(service)
    name = {xform_name(known, "-"): known for known in model.operation_names}[operation]
    members = model.operation_model(name).input_shape.members
    known = AWS_SHORTHANDS | {f"--{xform_name(member, '-')}" for member in members}
    for word in rest:
        assert not word.startswith("--") or word in known, f"{command}: {operation} has no {word}"
        if word.startswith("file://"):
            assert (ROOT / word.removeprefix("file://")).exists(), f"{command}: {word} is not there"


def shell(words: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MAKEFLAGS")}
    done = subprocess.run(
        words, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is empty but for a `best.yaml` and a small source of each form that a page names."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path(BEST).write_text(best_text(resolve_size(PretrainConfig(), has_gpu=False)))
    items = some_items(NUM_ITEMS)
    for form, name in (("parquet", "catalogue.parquet"), ("csv", "products.csv"), ("jsonl", "products.jsonl")):
        write, _ = FORMS[form]
        write(tmp_path, items)
        next(tmp_path.glob(f"items.{name.rpartition('.')[2]}")).rename(name)
    table = Path("products.csv")
    table.write_text(table.read_text().replace("photos/", ""))
    FORMS["webdataset"][0](tmp_path, items)
    for form, folder in (("folder per label", "by_label"), ("jsonl", "mixed"), ("parquet", "mixed")):
        (tmp_path / folder).mkdir(exist_ok=True)
        FORMS[form][0](tmp_path / folder, items)


def write_catalogue(path: Path) -> None:
    """Records with an attribute that some of them lack."""
    table = generate(0, 300, num_records=300)
    colours = [None if i % 10 == 0 else colour for i, colour in enumerate(table["colour"].to_pylist())]
    pq.write_table(table.drop(["colour"]).append_column("base_colour", pa.array(colours)), path)


@pytest.fixture(scope="module")
def a_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a rejected picture that was kept, its source with one more file, and a repaired row."""
    folder = tmp_path_factory.mktemp("set")
    write_source(folder / "grown" / "a.parquet", 100, {5: {"image": encoded(noise(5_100, 5_000), "JPEG")}})
    flags = ["--vocabulary-size", "200", "--keep-rejected", "--no-dashboard"]
    shell([sys.executable, "-m", "mlim_ray.command_line.main", "prepare", "grown", "set", *flags], folder)
    write_source(folder / "grown" / "b.parquet", 10, first=100)
    row = next(iter(pq.read_table(folder / "set" / "quarantine").to_pylist()))
    pq.write_table(pa.Table.from_pylist([row | {"image": encoded(noise())}]), folder / "repaired.parquet")
    return folder


@pytest.fixture(scope="module")
def some_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Equal runs of a few steps, each with a model of a size that there is."""
    folder = tmp_path_factory.mktemp("runs")
    prepared = PreparedSet.open(str(write_unfilled(folder / "set", "generated:100", vocabulary_size=150)))
    model = build_model(resolve_size(PretrainConfig(), has_gpu=False), prepared)
    for name in ("pretrain-001", "pretrain-002", "first"):
        run = train_run(folder / "runs" / name, run_config())
        shutil.rmtree(run / "checkpoints")
        export_model(model, prepared, str(run / "model"))
    return folder / "runs"


@pytest.mark.parametrize("command", PARAMETERS)
def test_a_command_of_the_pages_runs(command: Command, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if command.uses_set:
        shutil.copytree(request.getfixturevalue("a_set"), tmp_path, dirs_exist_ok=True)
    if command.asks_model:
        write_catalogue(tmp_path / "catalogue.parquet")
    if command.uses_runs:
        shutil.copytree(request.getfixturevalue("some_runs"), tmp_path / "runs")
    run(command)
    if command.uses_set:
        accepted = json.loads((tmp_path / "set" / "manifest.json").read_text())["counts"]["accepted"]
        assert accepted == {"verify": 99, "requeue": 100, "prepare": 109}[command.words[1]]
    if command.is_prepare:
        accepted = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["accepted"]
        assert accepted == (300 if STAND_INS.get(command.words[2]) == GENERATED else NUM_ITEMS)


SNIPPETS = [
    pytest.param(block, id=f"{page.name}: {block.splitlines()[0]}")
    for page in PAGES
    if page.exists()
    for language, block in _BLOCK.findall(page.read_text())
    if language == "python"
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_of_the_pages_runs(snippet: str, tmp_path: Path, some_runs: Path) -> None:
    """In a process of its own, as a reader would run it, among runs and some pictures."""
    shutil.copytree(some_runs, tmp_path / "runs")
    for name in ("shoe.jpg", "shirt.jpg"):
        noise().save(tmp_path / name)
    (tmp_path / "embeddings" / "parts").mkdir(parents=True)
    joint = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(12, np.float16)), 4)
    pq.write_table(pa.table({"joint": joint}), tmp_path / "embeddings" / "parts" / "part-00000.parquet")
    if "encoder.onnx" in snippet:
        run(Command("", ("mlim-ray", "export-onnx", "runs/pretrain-001", "encoder.onnx")))
    shell([sys.executable, "-c", snippet], tmp_path)


def test_the_readme_begins_with_the_two_commands() -> None:
    assert [command.words for command in COMMANDS if command.page == "README.md"][:2] == [
        ("make", "tune"),
        ("make", "test"),
    ]


def test_each_target_that_a_page_mentions_is_one() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        mentioned = set(re.findall(r"`make ([a-z][a-z-]*)[ `]", page.read_text()))
        assert mentioned <= targets, page.name


def test_commands_are_found_in_blocks_of_a_shell() -> None:
    text = """Not `make this`.
```sh
make tune ARGS="--trials 12"   # a search
# a remark

python experiments/pretrain.py \\
    --steps 7
```
```python
make that
```
```console
$ make test
== 3 passed
```
"""
    assert [command.words for command in commands_in(text, "page")] == [
        ("make", "tune", "ARGS=--trials 12"),
        ("python", "experiments/pretrain.py", "--steps", "7"),
        ("make", "test"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "curl example.org",
        "python -m http.server",
        "python experiments/absent.py",
        "make absent",
        "make check | tee log",
        "mlim-ray inspect",
        "mlim-ray inspect absent/",
    ],
)
def test_a_command_that_is_unknown_or_fails_is_told(line: str) -> None:
    (command,) = commands_in(f"```sh\n{line}\n```\n", "page")
    with pytest.raises(AssertionError):
        run(command)


@pytest.mark.parametrize("flags", ["--steps none", "--data absent/", "--trials 3", "--config absent.yaml"])
def test_an_experiment_that_would_be_refused_is_told(flags: str) -> None:
    (command,) = commands_in(f"```sh\npython experiments/pretrain.py {flags}\n```\n", "page")
    with pytest.raises(SystemExit):
        run(command)
