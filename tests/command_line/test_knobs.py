"""Every knob on the command line: any order, strict types, plain errors, help."""

import re
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlim_ray.command_line.errors import PlainParser, plain_errors
from mlim_ray.command_line.experiment import parse_pretrain, parse_search
from mlim_ray.command_line.knob import Knob, flag_of, knobs_of
from mlim_ray.command_line.knobs import add_knobs, apply_knobs
from mlim_ray.command_line.main import main
from mlim_ray.config import (
    IndependentConfig,
    MamConfig,
    PrepareConfig,
    PretrainConfig,
    SearchRunConfig,
    Section,
)
from mlim_ray.config.evaluate import EvaluateConfig
from mlim_ray.config.recipes_run import RecipesRunConfig
from mlim_ray.config.wording import union_members, unwrap


def apply(config: Section, *argv: str) -> Any:
    parser = PlainParser(prog="test")
    add_knobs(parser, type(config), config)
    return apply_knobs(config, parser.parse_args(argv))


def bounds_of(knob: Knob, kind: str | None) -> dict[str, float]:
    field = knob.field(kind)
    bounds = list(field.metadata)
    for member in union_members(field.annotation):
        bounds += unwrap(member)[1]
    return {name: value for bound in bounds for name, value in vars_of(bound).items()}


def vars_of(bound: object) -> dict[str, float]:
    return {name: getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name)}


def bad_texts(knob: Knob, kind: str | None) -> list[str]:
    """Values that a knob must refuse: nothing, another type, no known choice, beyond each bound."""
    members = [unwrap(member)[0] for member in union_members(knob.field(kind).annotation)]
    bad = [""]
    if tuple[str, ...] in members:
        bad += ["a,", ",", "a,,b"]
    elif str not in members:
        bad += ["no such choice", "nan", "-inf", "0x10", "none,none"]
    if int in members:
        bad += ["1.0", "1e3", "1_"]
    if any(get_origin(member) is tuple and Ellipsis not in get_args(member) for member in members):
        bad += ["1", "1,2", "1,2,3,4", "1,2,x"]
    for name, limit in bounds_of(knob, kind).items():
        beyond = limit + 1 if name in ("le", "lt") else limit - 1
        bad += [str(beyond)] + ([str(limit)] if name in ("gt", "lt") else [])
    return bad


def good_text(knob: Knob, kind: str | None, choose: Any) -> str:
    """A valid value other than `none`, drawn with `choose(strategy)`."""
    member = next(m for m in union_members(knob.field(kind).annotation) if unwrap(m)[0] is not type(None))
    inner = unwrap(member)[0]
    if get_origin(inner) is Literal:
        return str(choose(st.sampled_from(get_args(inner))))
    if get_origin(inner) is tuple:
        return ",".join(str(choose(st.integers(0, 255))) for _ in get_args(inner))
    if inner is bool:
        return choose(st.sampled_from(["true", "false"]))
    if inner is str:
        return str(choose(st.sampled_from(["title", "a b", "gr\u00f6\u00dfe", "-dash", "x=y"])))
    bounds = bounds_of(knob, kind)
    floor = int(bounds.get("ge", bounds.get("gt", 0)))
    if inner is int:
        low = floor + ("gt" in bounds)
        return str(choose(st.integers(low, int(min(bounds.get("le", low + 99), low + 99)))))
    return str(choose(st.sampled_from([floor + 0.125, floor + 2.5e-1, f"{floor}3e-1"])))


def every_case(config_class: type[Section]) -> list[Any]:
    return [
        pytest.param(knob, kind, id=f"{knob.flag}-{kind or ''}")
        for knob in knobs_of(config_class)
        for kind in knob.holders
    ]


@pytest.mark.parametrize(("knob", "kind"), every_case(SearchRunConfig))
def test_a_bad_value_of_any_knob_is_one_plain_line(
    knob: Knob, kind: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    parse, build = (parse_search, SearchRunConfig) if knob.path[0] == "search" else (parse_pretrain, PretrainConfig)
    chosen = [flag_of((*knob.path[:-1], "kind")), kind] if kind is not None and not knob.chooses_kind else []
    for bad in bad_texts(knob, kind):
        with pytest.raises(SystemExit) as left, plain_errors():
            parse([knob.flag, bad, *chosen], build)
        out, err = capsys.readouterr()
        assert left.value.code == 2
        assert out == ""
        assert err.startswith(f"{knob.flag}: given ") and "expected" in err, (bad, err)
        assert err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize(("knob", "kind"), every_case(PrepareConfig))
@pytest.mark.parametrize("command", [["prepare", "source", "out"], ["inspect", "source"]])
def test_a_bad_value_of_a_column_flag_is_one_plain_line(
    command: list[str], knob: Knob, kind: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in bad_texts(knob, kind):
        with pytest.raises(SystemExit) as left:
            main([*command, knob.flag, bad])
        err = capsys.readouterr().err
        assert left.value.code == 2
        assert err.startswith(f"{knob.flag}: given ") and err.count("\n") == 1


@pytest.mark.parametrize(("knob", "kind"), every_case(EvaluateConfig))
def test_a_bad_value_of_a_knob_of_an_evaluation_is_one_plain_line(
    knob: Knob, kind: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in bad_texts(knob, kind):
        with pytest.raises(SystemExit) as left:
            main(["evaluate", "run", knob.flag, bad])
        err = capsys.readouterr().err
        assert left.value.code == 2
        assert err.startswith(f"{knob.flag}: given ") and err.count("\n") == 1, (bad, err)


def test_every_type_of_bad_value_is_tried() -> None:
    tried = {bad for knob in knobs_of(SearchRunConfig) for kind in knob.holders for bad in bad_texts(knob, kind)}
    assert {"", "no such choice", "1.0", "1,2", "2.0", "-1.0", "0", "-1"} <= tried


@pytest.mark.parametrize(
    ("parse", "build"),
    [(parse_pretrain, PretrainConfig), (parse_search, SearchRunConfig), (parse_pretrain, RecipesRunConfig)],
    ids=["pretrain", "search", "recipes"],
)
def test_help_shows_every_knob_with_default_and_meaning(
    parse: Any, build: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        parse(["--help"], build)
    assert left.value.code == 0
    told = capsys.readouterr().out
    # Only one long value, which is not broken so that it can be copied, may stand out.
    assert all(len(line) <= 80 or " " not in line.strip() for line in told.splitlines())
    entries = re.split(r"\n  (?=--)", told)
    for knob in knobs_of(build):
        entry = " ".join(next(e for e in entries if re.match(rf"{re.escape(knob.flag)}\s", e)).split())
        assert "default " in entry
        # What a value looks like is one word.
        assert re.match(rf"{re.escape(knob.flag)} \S+ [a-zA-Z]", entry) and "<" not in entry, entry
        for kind in knob.holders:
            description = knob.field(kind).description
            assert description is not None, f"{knob.dotted} has no docstring"
            assert " ".join(description.split()) in entry
            assert kind is None or kind in entry


def test_help_shows_the_defaults_of_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    def build() -> PretrainConfig:
        return PretrainConfig(masking=IndependentConfig(text_ratio=0.375))

    with pytest.raises(SystemExit):
        parse_pretrain(["--help"], build, "The question.\n\nThe answer.")
    told = capsys.readouterr().out
    assert "default 0.375" in told and "(default independent)" in " ".join(told.split())
    assert "The question.\n\nThe answer." in told


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_and_either_spelling_give_the_same_config(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["mam", "independent", "alternating"]))
    usable = [knob for knob in knobs_of(PretrainConfig) if kind in knob.holders or None in knob.holders]
    chosen = data.draw(st.lists(st.sampled_from(usable), unique_by=lambda knob: knob.path, max_size=12))
    # These exclude each other, or must be a multiple of another: a config of their own.
    tied = {("model", "init_from"), ("train", "keep_every_steps"), ("evaluate", "every_steps"), ("evaluate", "tasks")}
    chosen = [knob for knob in chosen if knob.path not in tied]
    flags = {"--masking.kind": kind}
    for knob in chosen:
        if not knob.chooses_kind:
            flags[knob.flag] = good_text(knob, kind if kind in knob.holders else None, data.draw)
    pairs = [[f"{flag}={text}"] if text.startswith("-") else [flag, text] for flag, text in flags.items()]
    shuffled = data.draw(st.permutations(pairs))
    first = apply(PretrainConfig(), *(part for pair in pairs for part in pair))
    snake = [[pair[0].replace("-", "_").replace("__", "--", 1), *pair[1:]] for pair in shuffled if len(pair) == 2]
    joined = [pair for pair in shuffled if len(pair) == 1]
    assert apply(PretrainConfig(), *(part for pair in shuffled for part in pair)) == first
    assert apply(PretrainConfig(), *(part for pair in snake + joined for part in pair)) == first
    assert first.masking.kind == kind


def test_values_get_the_type_of_their_knob() -> None:
    config = apply(
        PretrainConfig(),
        *("--train.learning-rate", "1e-3", "--mlm.weight", "2", "--prepare.background-colour", "1,2,3"),
        *("--prepare.image-size", "64", "--model.bert-checkpoint", "none", "--train.batch-size", "1_000"),
    )
    assert config.train.learning_rate == 1e-3 and isinstance(config.mlm.weight, float)
    assert config.prepare.background_colour == (1, 2, 3) and config.prepare.image_size == 64
    assert config.model.bert_checkpoint is None and config.train.batch_size == 1000
    assert apply(config, "--train.learning-rate", "auto").train.learning_rate == "auto"


def test_another_kind_starts_from_its_own_defaults_and_the_same_kind_keeps_its_values() -> None:
    base = PretrainConfig(masking=MamConfig(image_heavy_ratio=0.6))
    assert apply(base, "--masking.kind", "independent").masking == IndependentConfig()
    assert apply(base, "--masking.kind", "mam", "--masking.text-light-ratio", "0.2").masking == MamConfig(
        image_heavy_ratio=0.6, text_light_ratio=0.2
    )
    assert apply(base) == base


def test_a_knob_that_the_kind_lacks_names_the_kinds_that_have_it() -> None:
    with pytest.raises(
        ValueError, match="--masking.text-ratio: given 0.3 with --masking.kind mam.*masking.kind independent"
    ):
        apply(PretrainConfig(), "--masking.text-ratio", "0.3")
    with pytest.raises(ValueError, match="expected --masking.kind mam or alternating"):
        apply(PretrainConfig(), "--masking.image-heavy-ratio", "0.3", "--masking.kind", "independent")


def test_a_rule_between_knobs_names_the_flags_that_broke_it() -> None:
    with pytest.raises(ValueError, match="^--masking.image-heavy-probability: .*expected at most 1"):
        apply(PretrainConfig(), "--masking.image-heavy-probability", "0.9", "--train.seed", "1")
    with pytest.raises(ValueError, match="^--recon.weight --mlm.weight: .*both 0"):
        apply(PretrainConfig(), "--recon.weight", "0", "--mlm.weight", "0")


def test_the_same_knob_twice_must_agree() -> None:
    assert apply(PretrainConfig(), "--mlm.weight", "0.5", "--mlm.weight", "5e-1").mlm.weight == 0.5
    with pytest.raises(ValueError, match="--mlm.weight 1 and --mlm.weight 2 set the same knob to different values"):
        apply(PretrainConfig(), "--mlm.weight", "1", "--mlm.weight", "2")
    with pytest.raises(ValueError, match="--masking.kind mam and --masking.kind independent"):
        apply(PretrainConfig(), "--masking.kind", "mam", "--masking.kind", "independent")


def test_negative_values_reach_the_knob_that_refuses_them() -> None:
    with pytest.raises(ValueError, match="^--train.learning-rate: given -1e-3, expected a number above 0"):
        apply(PretrainConfig(), "--train.learning-rate", "-1e-3")


def test_a_given_value_never_breaks_the_line() -> None:
    with pytest.raises(ValueError) as refused:
        apply(PretrainConfig(), "--train.seed", "1\n2\x1b[31m" + "x" * 10_000)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 300


def test_booleans_are_written_true_or_false() -> None:
    class Switches(Section):
        on: bool = False
        """a switch"""

    assert apply(Switches(), "--on", "true").on is True
    with pytest.raises(ValueError, match="--on: given yes, expected true or false"):
        apply(Switches(), "--on", "yes")


def test_a_tuple_of_any_length_is_a_comma_list() -> None:
    class Lists(Section):
        ratios: tuple[float, ...] = (0.5,)
        """some ratios"""

    assert apply(Lists(), "--ratios", "0.1, 1").ratios == (0.1, 1.0)
    with pytest.raises(ValueError, match="--ratios: given 1,x, expected values separated by commas, each a number"):
        apply(Lists(), "--ratios", "1,x")


def test_a_knob_that_no_text_can_give_is_refused_when_the_flags_are_made() -> None:
    class Odd(Section):
        table: dict[str, int] = {}  # noqa: RUF012
        """no text gives this"""

    with pytest.raises(TypeError, match="cannot be written on the command line"):
        add_knobs(PlainParser(), Odd)
