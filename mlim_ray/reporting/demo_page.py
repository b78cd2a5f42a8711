"""The page of `mlim-ray demo`, and an answer in the form that it shows."""

from typing import Any

from mlim_ray.data.inspection.examples import thumbnail_of
from mlim_ray.inference.answer import Answer
from mlim_ray.inference.gallery import Neighbour
from mlim_ray.reporting.inspection_page import thumbnail_uri
from mlim_ray.reporting.page import data_uri, percent, render_part


def render_demo_page(run: str, facts: str, max_picture_bytes: int) -> str:
    """The page; it asks its own server and nothing else.

    Args:
        run: name of the run.
        facts: what its model is, in a sentence.
        max_picture_bytes: most bytes of a picture's file.
    """
    return render_part("demo.html.j2", run=run, facts=facts, max_picture_bytes=max_picture_bytes)


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as plain values; pictures are addresses of images in the page itself."""
    return {
        "words": {
            "caption": answer.words_caption,
            "items": [
                {
                    "word": place.word,
                    "guesses": [
                        {
                            "shown": shown,
                            "words": [
                                {
                                    "word": guess.word,
                                    "probability": percent(guess.probability),
                                    "right": place.word is not None and guess.word == place.word.lower(),
                                }
                                for guess in guesses
                            ],
                        }
                        for shown, guesses in place.guesses.items()
                    ],
                }
                for place in answer.words
            ],
        },
        "pictures": {
            "caption": answer.paintings_caption,
            "items": [{"name": one.name, "caption": one.caption, "uri": data_uri(one.png)} for one in answer.paintings],
        },
        "neighbours": {
            "caption": answer.neighbours_caption,
            "items": [_neighbour(one) for one in answer.neighbours],
        },
    }


def _neighbour(one: Neighbour) -> dict[str, Any]:
    return {
        "key": one.key,
        "text": one.text,
        "uri": None if one.pixels_HW3 is None else thumbnail_uri(thumbnail_of(one.pixels_HW3)),
        "similarity": f"{one.similarity:.2f}",
    }
