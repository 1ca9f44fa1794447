"""What is known of the people of a list, and the trivial scorers made of it.

An **oracle** is told one attribute of everybody, gender say, and nothing else: it scores a pair 1 if the two agree, 0
if not, and 0.5 where it is not known. It hears and sees nothing. A system no better than the gender oracle has
learned gender; only what it scores among people of one gender (the stratum G) shows more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crossmodal.data.names import normalise_name
from crossmodal.data.protocols import People
from crossmodal.errors import DataError
from crossmodal.evaluation.lists import person_key

ATTRIBUTES = ("gender", "nationality", "age")
STRATA = {"G": ("gender",), "N": ("nationality",), "A": ("age",), "GN": ("gender", "nationality"), "GNA": ATTRIBUTES}
"""Strata of Nagrani et al. 2018 (Learnable PINs, table 3): what the two people of a negative pair have in common."""
SEEN, UNSEEN = "seen-heard", "unseen-unheard"


class Known:
    """What is known of people: attributes from a table, and the side of a split they are on.

    Args:
        people: table of people, if there is one.
        sides: normalised name or id → ``train``, ``validation`` or ``test``, if there is a split
            (:func:`crossmodal.data.protocols.identity_sides`).
    """

    def __init__(self, people: People | None = None, sides: Mapping[str, str] | None = None) -> None:
        self.people, self.sides = people, sides

    def key(self, person: str) -> str:
        """See :func:`crossmodal.evaluation.lists.person_key`."""
        return person_key(person, self.people)

    def attribute(self, person: str, name: str) -> str:
        """``gender``, ``nationality`` or ``age`` of a person, empty if not known. Ages in years become decades."""
        if self.people is None or person not in self.people:
            return ""
        value = self.people.attribute(person, name) or ""
        if name == "age" and value.replace(".", "", 1).isdigit():
            return f"{int(float(value)) // 10 * 10}s"
        return value.casefold()

    def seen(self, person: str) -> bool | None:
        """Whether the person is on the side that is trained on; ``None`` if the split does not know them."""
        if self.sides is None:
            return None
        names = (person, *(self.people.names(person) if self.people is not None else ()))
        side = next((self.sides[key] for key in map(normalise_name, names) if key in self.sides), None)
        return None if side is None else side == "train"

    def values(self, persons: Sequence[str], name: str) -> np.ndarray:
        """An attribute of many people ``(N,)``, empty texts where it is not known."""
        known = {person: self.attribute(person, name) for person in set(persons)}
        return np.array([known[person] for person in persons], dtype=str)

    def agree(self, one: Sequence[str], other: Sequence[str], name: str) -> np.ndarray:
        """``(N,)``: 1 where two people share an attribute, 0 where they do not, 0.5 where one is not known."""
        return agreement(self.values(one, name), self.values(other, name))

    def require(self, persons: Sequence[str], name: str) -> None:
        """See that an oracle of this attribute can say anything.

        Raises:
            DataError: there is no table, somebody is not in it, or it has the attribute of nobody.
        """
        if self.people is None:
            raise DataError(f"the {name} oracle needs to know people", source="--oracle", remedy="add --meta FILE")
        distinct = sorted(set(persons))
        absent = [person for person in distinct if person not in self.people]
        table = self.people.table_name
        if "" in absent:
            raise DataError("the list does not say who is who", source="--oracle", remedy="add ids to the list")
        if absent:
            raise DataError(f"{len(absent)} people of the list are not in it, first '{absent[0]}'", source=table)
        if not any(self.attribute(person, name) for person in distinct):
            raise DataError(f"has the {name} of nobody on the list", source=table)


def agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where two attributes are equal, 0 where they differ, 0.5 where one is empty; shapes broadcast."""
    return np.where((one == "") | (other == ""), 0.5, (one == other).astype(np.float64))
