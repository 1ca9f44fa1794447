"""Names of embedding spaces: ``<network>-<components>``, for example ``ge2e-256`` or ``dlib-128``."""

from __future__ import annotations

from typing import Literal

from crossmodal.errors import ConfigError

SpaceForm = Literal["positive", "unit", "free"]
_FORMS: dict[str, SpaceForm] = {"ge2e": "positive", "xtts": "free"}


def space_size(name: str) -> int:
    """Components of a vector in the embedding space ``name`` (128 for ``dlib-128``).

    Raises:
        ConfigError: the name does not end in a dash and a positive number.
    """
    _, dash, size = name.rpartition("-")
    if not (dash and size.isdigit() and int(size) > 0):
        remedy = "write <network>-<components>, for example dlib-128"
        raise ConfigError("is not the name of an embedding space", source=repr(name), remedy=remedy)
    return int(size)


def space_form(name: str) -> SpaceForm:
    """What the vectors of a speaker space look like.

    ``positive``: unit length, no component negative (``ge2e``: its encoder ends in a ReLU); ``unit``: unit length
    (``yourtts`` and other d-vectors); ``free``: lengths and signs carry information (``xtts``: conditioning latents).
    """
    return _FORMS.get(name.rpartition("-")[0], "unit")
