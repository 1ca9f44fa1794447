"""Make ``lexicon.txt.xz`` from the dictionaries that ``pocketsphinx`` and ``gruut_lang_en`` carry (see ``LEXICON.md``).

::

    python -m crossmodal.starter.make_lexicon lexicon.txt.xz
"""

from __future__ import annotations

import argparse
import importlib.resources
import lzma
import re
import sqlite3
from pathlib import Path

from crossmodal.files import atomic_write
from crossmodal.text import FROM_IPA, VOWELS


def stresses() -> dict[str, list[list[str]]]:
    """Word → stress digits of the vowels of each pronunciation in gruut's lexicon."""
    found: dict[str, list[list[str]]] = {}
    with importlib.resources.as_file(importlib.resources.files("gruut_lang_en") / "lexicon.db") as path:
        database = sqlite3.connect(path)
        query = "select word, phonemes from word_phonemes order by word, pron_order"
        for word, phonemes in database.execute(query):
            symbols = [s for s in phonemes.split() if FROM_IPA.get(s.strip("ˈˌː")) in VOWELS]
            found.setdefault(word, []).append(["1" if "ˈ" in s else "2" if "ˌ" in s else "0" for s in symbols])
        database.close()
    return found


def lines() -> list[str]:
    """``word PH1 PH ...``, sorted."""
    from pocketsphinx import get_model_path

    known, made = stresses(), []
    for entry in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        word, *phones = entry.split()
        if not re.fullmatch("[a-z']+", word):
            continue
        vowels = [i for i, phone in enumerate(phones) if phone in VOWELS]
        digits = next((d for d in known.get(word, []) if len(d) == len(vowels)), None)
        if digits is None or "1" not in digits:
            digits = ["0"] * len(vowels)
            full = [k for k, i in enumerate(vowels) if phones[i] not in ("AH", "ER") and (phones[i] != "IY" or k == 0)]
            for k in (full or list(range(len(vowels))))[:1]:
                digits[k] = "1"
        for i, digit in zip(vowels, digits, strict=True):
            phones[i] += digit
        made.append(f"{word} {' '.join(phones)}")
    return sorted(made)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the bundled lexicon.")
    parser.add_argument("out", type=Path, help="lexicon.txt.xz")
    options = parser.parse_args()
    made = lines()
    atomic_write(options.out, lzma.compress("\n".join(made).encode("ascii"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(made)} words")


if __name__ == "__main__":
    main()
