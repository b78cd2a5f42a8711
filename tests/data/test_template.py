import pytest

from mlim_ray.data.template import TextTemplate, TextValue
from mlim_ray.data.text import clean_text


def fill(template: str, **values: TextValue) -> str | None:
    parsed = TextTemplate.parse(template)
    return parsed.fill([values.get(name) for name in parsed.columns])


PRODUCT = "{brand} {title}. {description}"


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        (PRODUCT, {"brand": b"Nike", "title": "Shoe", "description": "Good."}, "Nike Shoe. Good."),
        (PRODUCT, {"title": "Shoe", "description": "Good."}, "Shoe. Good."),
        (PRODUCT, {"brand": "Nike", "description": "Good."}, "Nike. Good."),
        (PRODUCT, {"brand": "Nike", "title": " Shoe "}, "Nike Shoe"),
        (PRODUCT, {"brand": "", "title": b" \t", "description": "\u3000"}, None),
        ("{a} ({size}), {b}", {"a": "x", "b": "y"}, "x, y"),
        ("{a} ({size}), {b}", {"a": "x", "size": "L"}, "x (L)"),
        ("({a}) {b}", {"b": "y"}, "y"),
        ("Brand: {brand}, size {size}, {title}", {"brand": "Nike", "title": "Shoe"}, "Brand: Nike, Shoe"),
        ("Brand: {brand}, size {size}, {title}", {"title": "Shoe"}, "Shoe"),
        ("a photo of a {label}", {"label": "cat"}, "a photo of a cat"),
        ("{label} from our shop", {"label": "cat"}, "cat from our shop"),
        ("{a}, {b} from our shop", {"a": "cat"}, "cat from our shop"),
        ("{title}.", {"title": "Shoe"}, "Shoe."),
        ("{a} {b}.", {"a": "Shoe"}, "Shoe"),
        ("{{{a}}} {a}", {"a": "x"}, "{x} x"),
        ("{a} {year} {price}", {"a": "x", "year": 2012, "price": 9.5}, "x 2012 9.5"),
        ("{a} {b}", {"a": "x", "b": float("nan")}, "x"),
        ("{product name}-{b}", {"product name": "x", "b": 0}, "x-0"),
    ],
)
def test_columns_are_joined_and_empty_ones_leave_no_hole(
    template: str, values: dict[str, TextValue], expected: str | None
) -> None:
    assert fill(template, **values) == expected


def test_each_column_is_read_once_in_the_order_of_mention() -> None:
    assert TextTemplate.parse("{b}{a} {b}").columns == ("b", "a")


@pytest.mark.parametrize(
    "template",
    [
        *("", "no column", "{}", "{ }", "{0.x}", "{a.__class__}", "{a[0]}", "{a!r}", "{a:>10}", "{a:{b}}"),
        *("{a", "a}", "{a}}", "{a!}"),
    ],
)
def test_only_plain_names_are_taken(template: str) -> None:
    with pytest.raises(ValueError, match="--text"):
        TextTemplate.parse(template)


def test_a_value_is_never_taken_for_a_template() -> None:
    assert fill("{a} {b}", a="{b}", b="{a.__class__}") == "{b} {a.__class__}"


def test_invalid_utf8_in_one_column_is_found_by_the_cleaning() -> None:
    text = fill("{a} {b}", a=b"caf\xe9", b="x")
    assert text is not None
    problem = clean_text(text, 100)
    assert getattr(problem, "reason", None) == "invalid_utf8"
