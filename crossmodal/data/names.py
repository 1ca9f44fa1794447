"""Names of people, written the same way whatever data set they come from."""

from __future__ import annotations

import functools
import unicodedata

# Letters that Unicode does not decompose into a base letter and a mark.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i", "ħ": "h", "ŧ": "t", "ŋ": "n"}
)


@functools.lru_cache(maxsize=1 << 16)  # lists say the same names again and again
def normalise_name(name: str) -> str:
    """The key under which two spellings of one name meet: ``A.J._Buckley`` and ``a j buckley`` → ``ajbuckley``.

    Marks over letters, case, underscores, dots, hyphens, apostrophes and blanks are dropped; letters of other scripts
    and digits stay. A qualifier such as ``(actor)`` stays too, because it tells two people apart. Applying it twice
    changes nothing.
    """
    previous = None
    while name != previous:
        previous = name
        folded = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS)).casefold()
        name = "".join(c for c in folded if unicodedata.category(c) in ("Ll", "Lo", "Lu", "Lt", "Nd", "Nl", "No"))
    return name
