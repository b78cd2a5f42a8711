"""From the flags of an experiment to a checked request."""

from pathlib import Path

import pytest

from mlim_ray.command_line.experiment import parse_pretrain, parse_search
from mlim_ray.config import FeedConfig, ModelConfig, PretrainConfig, SearchRunConfig, TrainConfig
from mlim_ray.config.files import best_text, config_text
from mlim_ray.data.storage import MissingPathError


@pytest.fixture(autouse=True)
def no_ray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_flags_a_run_uses_the_generated_catalogue_and_its_own_ray() -> None:
    for request in (parse_pretrain([], PretrainConfig), parse_search([], SearchRunConfig)):
        assert (request.data, request.out, request.address) == ("generated:10000", None, "local")
        assert request.num_workers == 1 and request.dashboard
        assert not (request.resume or request.overwrite or request.dry_run or request.json)
    assert request.config == SearchRunConfig()


def test_every_flag_of_pretrain_reaches_the_request() -> None:
    flags = "--data d --out o --workers 2 --steps 7 --seed 5 --feed stream --address 1.2.3.4:6379 --resume"
    flags += " --init-from e"
    request = parse_pretrain([*flags.split(), "--dry-run", "--json", "--no-dashboard"], PretrainConfig)
    assert (request.data, request.out, request.num_workers, request.address) == ("d", "o", 2, "1.2.3.4:6379")
    assert request.resume and request.dry_run and request.json and not request.dashboard and not request.overwrite
    assert request.config == PretrainConfig(
        train=TrainConfig(num_steps=7, seed=5), feed=FeedConfig(kind="stream"), model=ModelConfig(init_from="e")
    )


def test_every_flag_of_a_search_reaches_the_request() -> None:
    flags = "--data d --out o --trials 4 --max-samples 640 --seed 3 --feed resident --overwrite"
    request = parse_search([*flags.split(), "--workers-per-trial", "2"], SearchRunConfig)
    search = request.config.search
    assert search.workers_per_trial == request.num_workers == 2
    assert (search.num_trials, search.max_samples, request.config.train.seed) == (4, 640, 3)
    assert request.config.feed.kind == "resident" and request.overwrite
    assert request.config.probe == SearchRunConfig().probe


def test_the_address_comes_from_the_environment_and_is_never_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert parse_pretrain([], PretrainConfig).address == "10.0.0.5:6379"
    assert parse_pretrain(["--address", "local"], PretrainConfig).address == "local"
    with pytest.raises(ValueError, match="^--address: given auto, expected an address"):
        parse_pretrain(["--address", "auto"], PretrainConfig)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ValueError, match="^RAY_ADDRESS: given auto"):
        parse_pretrain([], PretrainConfig)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--workers 0", "--workers: given 0, expected a whole number of at least 1"),
        ("--workers two", "--workers: given two, expected a whole number"),
        ("--workers 17", "--workers: given 17, expected at most 16, the lanes of the feed"),
        (
            "--workers 5 --train.batch-size 4",
            "--workers: given 5, expected at most 4, the records of a batch",
        ),
        ("--steps 0", "--steps: given 0, expected a whole number of at least 1"),
        ("--seed -1", "--seed: given -1, expected a whole number of at least 0"),
        ("--feed tap", "--feed: given tap, expected one of auto, stream, resident"),
        (
            "--steps 5 --train.num-steps 6",
            "--steps 5 and --train.num-steps 6 set the same knob to different values",
        ),
        ("--resume", "--resume: given no run folder"),
        ("--resume --overwrite --out x", "--resume and --overwrite are both given"),
        ("--data=", "--data: given nothing"),
        ("--out=", "--out: given nothing"),
        ("--trials 3", "--trials: unknown flag"),
        ("--config=", "--config: given nothing"),
        (
            "--init-from a --model.bert-checkpoint b",
            "--init-from --model.bert-checkpoint: bert_checkpoint and init_from are both given",
        ),
        ("--init-from a --model.init-from b", "--init-from a and --model.init-from b set the same knob"),
        ("--init-from runs/a --out runs --overwrite", "--init-from: runs/a lies in --out runs, which --overwrite"),
    ],
)
def test_what_pretrain_refuses(flags: str, line: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_pretrain(flags.split(), PretrainConfig)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--trials 0", "--trials: given 0, expected a whole number of at least 1"),
        ("--max-samples 0", "--max-samples: given 0, expected a whole number of at least 1"),
        ("--workers-per-trial 0", "--workers-per-trial: given 0, expected a whole number of at least 1"),
        ("--workers-per-trial 17", "--workers-per-trial: given 17, expected at most 16, the lanes of the feed"),
        (
            "--search.workers-per-trial 3 --train.batch-size 2",
            "--workers-per-trial: given 3, expected at most 2, the records of a batch; use fewer or raise --train.b",
        ),
        ("--workers 2", "--workers: unknown flag"),
        ("--space recon.weight=0..1:log", "--space: given 'recon.weight=0..1:log', expected a lower end above 0"),
        ("--space no.yaml", "cannot read no.yaml: it does not exist"),
        ("--score loss", "--score: given 'loss', expected one of probe, mlm, recon"),
    ],
)
def test_what_a_search_refuses(flags: str, line: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_search(flags.split(), SearchRunConfig)
    assert str(refused.value).startswith(line)


def test_a_space_is_given_in_a_file_or_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("train.batch_size: 16..64:log\nrecon.target: [whole, masked]\ntrain.compile: false\n")
    written = parse_search(["--space", str(path)], SearchRunConfig).config
    line = "train.batch_size=16..64:log,recon.target=whole|masked,train.compile=false"
    assert written == parse_search(["--space", line], SearchRunConfig).config
    assert written == parse_search(["--search.space", line], SearchRunConfig).config
    assert written.search.space == tuple(line.split(","))


def test_a_shorthand_and_its_long_flag_may_agree() -> None:
    request = parse_pretrain(["--train.num_steps", "6", "--steps=6"], PretrainConfig)
    assert request.config.train.num_steps == 6


def test_a_search_starts_from_the_config_of_another(tmp_path: Path) -> None:
    before = parse_search(
        ["--trials", "5", "--space", "recon.weight=2..4", "--mlm.weight", "3"], SearchRunConfig
    ).config
    path = tmp_path / "config.yaml"
    path.write_text(config_text(before))
    assert parse_search(["--config", str(path)], SearchRunConfig).config == before
    assert parse_search(["--config", str(path), "--trials", "6"], SearchRunConfig).config.search.num_trials == 6


def test_flags_are_laid_over_the_config_file(tmp_path: Path) -> None:
    path = str(tmp_path / "best.yaml")
    config = PretrainConfig.model_validate({"model": {"size": "tiny"}, "train": {"learning_rate": 0.004}})
    Path(path).write_text(best_text(config))
    assert parse_pretrain(["--config", path], PretrainConfig).config.train.learning_rate == 0.004
    bigger = parse_pretrain(["--model.size", "base", "--mlm.weight", "2", "--config", path], PretrainConfig).config
    assert (bigger.model.size, bigger.train.learning_rate, bigger.mlm.weight) == ("base", "auto", 2.0)
    with pytest.raises(MissingPathError):
        parse_pretrain(["--config", str(tmp_path / "absent.yaml")], PretrainConfig)
