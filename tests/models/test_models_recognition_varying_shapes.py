"""What in a model's shapes follows a number."""

import pytest

from spgsurgeon.models.recognition.varying_shapes import number_at, places_between


def test_a_place_is_none_where_shapes_differ_in_another_way():
    def places(shape, other):
        return places_between({"a": shape}, {"a": other}, 10, 13)

    assert places((20, 4), (26, 4)) == (("a", 0, 2),)
    assert places((20, 4), (26, 5)) == ()
    assert places((21, 4), (27, 4)) == ()
    assert places((20, 4), (26, 4, 1)) == ()
    assert places_between({"a": (10,)}, {"b": (13,)}, 10, 13) == ()


@pytest.mark.parametrize(
    ("shapes", "number"),
    [
        ({"a": (7, 4), "b": (14,)}, 7),
        ({"a": (7, 4)}, 7),
        ({"c": (7, 4)}, 0),
        ({"a": (7, 4), "b": (16,)}, None),
        ({"b": (15,)}, None),
    ],
)
def test_the_number_is_what_all_places_agree_on(shapes, number):
    assert number_at(shapes, (("a", 0, 1), ("b", 0, 2)), otherwise=0) == number
