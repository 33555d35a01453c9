"""Which values two recipes have otherwise."""

from spgsurgeon.recipe.differences import differing


def test_values_are_compared_by_dotted_key() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    other = {"a": {"b": 2, "c": [1, 2]}, "e": None, "g": 3}
    assert differing(one, other) == {"a.b": (1, 2), "d": (1, None), "e": ({"f": 1}, None), "g": (None, 3)}
    assert differing(one, one) == {}
