"""What is worth saying of a sample that was read, counted over a data set and said once."""

from __future__ import annotations

from enum import IntFlag, auto


class Traits(IntFlag):
    """One bit each."""

    ORIENTED = auto()
    """An image that carries an EXIF orientation, which was not applied."""
    TRANSPARENT = auto()
    """An image of which some pixels are transparent, and the colour below was taken."""
    DEEP = auto()
    """An image whose grey was scaled to 8 bits, from a range that nobody had to say."""
    CUT = auto()
    """A text, or a sound, that is longer than the model takes, and was cut."""
    EMPTY = auto()
    """A text without a word, or a word without a token."""
    LOST = auto()
    """A question whose answer lies in what was cut away."""
    RESAMPLED = auto()
    """A sound that was recorded at another rate than the model's."""
