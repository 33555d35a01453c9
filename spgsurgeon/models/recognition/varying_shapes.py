"""Where the shapes of a model follow a number: of classes, or of input channels."""

from __future__ import annotations

from spgsurgeon.models.recognition.fingerprints import Places, Shapes


def places_between(shapes: Shapes, other: Shapes, number: int, other_number: int) -> Places:
    """Return where the shapes are a multiple of `number`, and the other's the same multiple of `other_number`.

    Nowhere, where the two differ in another way too.
    """
    if other.keys() != shapes.keys():
        return ()
    places = []
    for key, shape in shapes.items():
        if len(shape) != len(other[key]):
            return ()
        for dimension, (size, other_size) in enumerate(zip(shape, other[key], strict=True)):
            factor = size // number
            if size != other_size and (factor * number, factor * other_number) != (size, other_size):
                return ()
            if size != other_size:
                places.append((key, dimension, factor))
    return tuple(places)


def number_at(shapes: Shapes, places: Places, otherwise: int | None) -> int | None:
    """Return the number that the sizes at these places follow; `otherwise` where the file has no such place.

    None if the sizes contradict each other, or are no multiple of their factors.
    """
    found = {
        divmod(shapes[key][dimension], factor)
        for key, dimension, factor in places
        if key in shapes and dimension < len(shapes[key])
    }
    if not found:
        return otherwise
    [(number, remainder), *others] = found
    return number if number > 0 and not remainder and not others else None
