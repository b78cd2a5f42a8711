import pyarrow as pa
import pytest

from mlim_ray.config.prepare import PrepareConfig
from mlim_ray.data.schema import Columns, guess_columns

PLAIN = PrepareConfig()
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def guess(config: PrepareConfig = PLAIN, **columns: pa.DataType) -> Columns:
    return guess_columns(pa.schema(list(columns.items())), config, "SOURCE")


def test_the_columns_of_real_sets() -> None:
    fashion = dict.fromkeys(("id", "image", "text", "label", "sub_category", "usage", "group_id", "split"), pa.string())
    fashion |= {"image": pa.binary(), "year": pa.int32()}
    assert guess(**fashion) == Columns("image", "text", "id", "label", "group_id", "split")
    emoji = {
        "id": pa.string(),
        "image": pa.binary(),
        "text": pa.string(),
        "name": pa.string(),
        "tags": pa.string(),
    }
    assert guess(**emoji) == Columns("image", "text", "id")


def test_hugging_face_and_path_columns() -> None:
    assert guess(image=PICTURE, caption=pa.large_string()) == Columns("image", "caption")
    assert guess(file_name=pa.string(), title=pa.string(), sku=pa.int64()) == Columns("file_name", "title", "sku")
    assert guess(path=pa.string(), image=pa.binary(), text=pa.string()).image == "image"


def test_names_are_found_in_any_case_and_types_decide() -> None:
    assert guess(Photo=pa.binary(), Title=pa.string(), ID=pa.float32()) == Columns("Photo", "Title")
    assert guess(raw=pa.binary(), words=pa.string()) == Columns("raw", "words")
    assert guess(raw=pa.binary(), text=pa.dictionary(pa.int32(), pa.string())) == Columns("raw", "text")


def test_product_id_is_a_group_beside_a_key_of_its_own() -> None:
    assert guess(image=pa.binary(), text=pa.string(), id=pa.int64(), product_id=pa.int64()).group == "product_id"


def test_named_columns_win() -> None:
    config = PrepareConfig(text_column="name", key_column="code", label_column="text")
    chosen = guess(config, image=pa.binary(), text=pa.string(), name=pa.string(), id=pa.string(), code=pa.int32())
    assert chosen == Columns("image", "name", "code", "text")


@pytest.mark.parametrize(
    ("config", "columns", "message"),
    [
        (
            PLAIN,
            {"image": pa.binary(), "price": pa.float64()},
            r"--text-column NAME.*image \(binary\), price \(double\)",
        ),
        (PLAIN, {"text": pa.string(), "price": pa.float64()}, r"--image-column NAME.*text \(string\)"),
        (PLAIN, {"image": pa.binary(), "a": pa.string(), "b": pa.string()}, "--text-column NAME"),
        (
            PrepareConfig(text_column="titel"),
            {"image": pa.binary(), "text": pa.string()},
            "titel: no such column",
        ),
        (PrepareConfig(image_column="n"), {"n": pa.int32(), "text": pa.string()}, "n: the column is int32"),
        (
            PrepareConfig(split_column="n"),
            {"image": pa.binary(), "text": pa.string(), "n": pa.int8()},
            "is int8",
        ),
    ],
)
def test_errors_name_the_columns_and_the_flag(config: PrepareConfig, columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guess(config, **columns)


def test_attributes_are_texts_numbers_or_truth_values_and_named_once() -> None:
    kinds = {"hue": pa.string(), "year": pa.int32(), "price": pa.float64(), "new": pa.bool_(), "void": pa.null()}
    kinds |= {"coded": pa.dictionary(pa.int8(), pa.string()), "sizes": pa.list_(pa.string()), "day": pa.date32()}
    table = {"image": pa.binary(), "text": pa.string(), **kinds}
    named = ("year", "hue", "price", "new", "void", "coded", "text")
    found = guess(PrepareConfig(attribute_columns=named), **table)
    assert found.attributes == named and found.text == "text"
    assert found.names() == ["image", "text", "year", "hue", "price", "new", "void", "coded"]
    for bad, message in (
        (("sizes",), r"--attribute-columns sizes: the column is list<.*> in SOURCE, expected string, a number"),
        (("day",), "--attribute-columns day: the column is date32"),
        (("hue", "hue"), "--attribute-columns hue: named 2 times, expected each column once"),
        (("shade",), r"--attribute-columns shade: no such column in SOURCE\. Columns: image"),
    ):
        with pytest.raises(ValueError, match=message):
            guess(PrepareConfig(attribute_columns=bad), **table)
