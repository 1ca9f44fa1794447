"""Text → tokens of the acoustic model, offline: normalise, split into sentences, look words up or sound them out.

The phones are the 39 of the CMU Pronouncing Dictionary plus a pause. Words come from a bundled lexicon (CMUdict's
pronunciations with stress); for others plain word endings are peeled off, then ``gruut``'s letter-to-sound model
speaks,
and what even that cannot read is spelled. Every word gets phones.
"""

from __future__ import annotations

import functools
import importlib.resources
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crossmodal.errors import TextError
from crossmodal.text_normalise import normalise, spell

__all__ = ["PHONES", "PUNCTUATION", "SILENCE", "TokenSequence", "encode", "normalise", "phones", "sentences", "words"]

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W",
    "Y", "Z", "ZH",
)  # fmt: skip
SILENCE = "SIL"
PHONES: tuple[str, ...] = (SILENCE, *VOWELS, *CONSONANTS)
"""Phone names; a token's id is the place in this tuple. ``SIL`` is 0."""
PUNCTUATION: tuple[str, ...] = ("", ",", ".", "?", "!")
"""Marks a token can carry; 0 is none. A pause carries the mark it stands for, a phone the mark that ends its clause."""

MAX_WORDS = 28
"""Longest piece :func:`sentences` returns, in words."""

_PHONE_IDS = {name: i for i, name in enumerate(PHONES)}
_LEXICON_FILE = "lexicon.txt.xz"
_ENDINGS = "'s s' es s 'd ed 'll 've 're ing in' er ly ness less ful".split()
_JOINTS = "and but or because which that when while where who so then if".split()
"""Words before which a long sentence may be cut."""
FROM_IPA = {
    "ɑ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO", "aʊ": "AW", "aɪ": "AY", "ɛ": "EH", "ɚ": "ER",
    "ɝ": "ER", "eɪ": "EY", "ɪ": "IH", "i": "IY", "oʊ": "OW", "ɔɪ": "OY", "ʊ": "UH", "u": "UW", "b": "B", "t͡ʃ": "CH",
    "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "h": "HH", "d͡ʒ": "JH", "k": "K", "l": "L", "m": "M", "n": "N",
    "ŋ": "NG", "p": "P", "ɹ": "R", "s": "S", "ʃ": "SH", "t": "T", "θ": "TH", "v": "V", "w": "W", "j": "Y", "z": "Z",
    "ʒ": "ZH", "ɾ": "T", "x": "K",
}  # fmt: skip
_LETTER_SOUNDS = dict(zip("abcdefghijklmnopqrstuvwxyz", (
    "AE1 B K D EH1 F G HH IH1 JH K L M N AA1 P K R S T AH1 V W K-S Y Z").split(), strict=True))  # fmt: skip
_OVERRIDES = {
    "ay": "EY1", "bee": "B IY1", "see": "S IY1", "dee": "D IY1", "ee": "IY1", "eff": "EH1 F", "gee": "JH IY1",
    "aitch": "EY1 CH",
    "eye": "AY1", "jay": "JH EY1", "kay": "K EY1", "ell": "EH1 L", "em": "EH1 M", "en": "EH1 N", "oh": "OW1",
    "pee": "P IY1",
    "cue": "K Y UW1", "ar": "AA1 R", "ess": "EH1 S", "tee": "T IY1", "vee": "V IY1", "ex": "EH1 K S", "why": "W AY1",
    "zee": "Z IY1",
    "doubleyou": "D AH1 B AH0 L Y UW0", "a": "AH0", "the": "DH AH0", "miz": "M IH1 Z", "missus": "M IH1 S IH0 Z",
}  # fmt: skip


@dataclass(frozen=True)
class TokenSequence:
    """One sentence as the acoustic model reads it: N tokens, one a phone or pause; the first and last are pauses."""

    phones: tuple[int, ...]
    """Places in :data:`PHONES`."""
    stress: tuple[int, ...]
    """0 none, 1 primary, 2 secondary (vowels only)."""
    word_final: tuple[bool, ...]
    """Whether the token ends a word."""
    punctuation: tuple[int, ...]
    """Places in :data:`PUNCTUATION`."""

    def __len__(self) -> int:
        return len(self.phones)

    def __str__(self) -> str:
        return " ".join(PHONES[p] + (str(s) if s else "") for p, s in zip(self.phones, self.stress, strict=True))


@functools.lru_cache(maxsize=1)
def lexicon() -> dict[str, str]:
    """Word → phones with stress digits on vowels, e.g. ``{"trail": "T R EY1 L"}`` (about 126,000 words)."""
    packed = importlib.resources.files("crossmodal.starter").joinpath(_LEXICON_FILE).read_bytes()
    entries = dict(line.split(" ", 1) for line in lzma.decompress(packed).decode("ascii").splitlines())
    entries.update(_OVERRIDES)
    return entries


@functools.lru_cache(maxsize=4096)
def pronounce(word: str) -> str:
    """Phones of a word with stress digits, e.g. ``T R EY1 L``: lexicon, else endings, else letter-to-sound, else
    spelled.

    Raises:
        TextError: the word holds nothing but apostrophes.
    """
    known = lexicon()
    word = word.lower()
    if word in known:
        return known[word]
    bare = word.strip("'")
    if bare in known:
        return known[bare]
    letters = re.sub("[^a-z]", "", word)
    if not letters:
        raise TextError("holds no letters", source=repr(word), remedy="give a word")
    return _inflected(bare) or _compound(letters) or _letter_to_sound(letters) or _by_letters(letters)


def _inflected(word: str) -> str | None:
    """A known word with a plain ending: possessive, plural, past, -ing, -er, -ly, -ness."""
    known = lexicon()
    for ending in _ENDINGS:
        stem = word[: -len(ending)]
        if not word.endswith(ending) or len(stem) < 3:
            continue
        candidates = [stem]
        if ending in ("es", "ed", "ing", "er"):
            candidates += [stem + "e"] + ([stem[:-1]] if stem[-1] == stem[-2] else [])
        if ending in ("es", "ed", "er", "ness") and stem.endswith("i"):
            candidates.append(stem[:-1] + "y")
        for candidate in candidates:
            if candidate in known:
                return f"{known[candidate]} {_ending(ending, known[candidate].split()[-1].rstrip('012'))}"
    return None


def _ending(ending: str, last: str) -> str:
    """Phones of an ending after the phone ``last``."""
    if ending in ("'s", "s'", "es", "s"):
        return (
            "IH0 Z"
            if last in ("S", "Z", "SH", "ZH", "CH", "JH")
            else "S"
            if last in ("P", "T", "K", "F", "TH")
            else "Z"
        )
    if ending in ("'d", "ed"):
        return "IH0 D" if last in ("T", "D") else "T" if last in ("P", "K", "F", "TH", "S", "SH", "CH") else "D"
    return {"'ll": "AH0 L", "'ve": "V", "'re": "ER0", "ing": "IH0 NG", "in'": "IH0 N", "er": "ER0", "ly": "L IY0",
            "ness": "N AH0 S", "less": "L AH0 S", "ful": "F AH0 L"}[ending]  # fmt: skip


def _compound(word: str) -> str | None:
    """Two known words of at least four letters written together."""
    known = lexicon()
    for cut in range(len(word) - 4, 3, -1):
        if word[:cut] in known and word[cut:] in known:
            return f"{known[word[:cut]]} {known[word[cut:]].replace('1', '2')}"
    return None


@functools.lru_cache(maxsize=1)
def _grapheme_model():  # type: ignore[no-untyped-def]
    from gruut.g2p import GraphemesToPhonemes

    folder = importlib.resources.files("gruut_lang_en") / "g2p"
    return GraphemesToPhonemes(str(folder / "model.crf"))


def _letter_to_sound(word: str) -> str | None:
    if len(word) > 40:
        return None
    try:
        symbols = _grapheme_model()(word)
    except (ImportError, OSError, ValueError, IndexError, KeyError):
        return None
    out: list[str] = []
    for symbol in symbols:
        stress = "1" if "ˈ" in symbol else "2" if "ˌ" in symbol else "0"
        phone = FROM_IPA.get(symbol.strip("ˈˌː"))
        if phone:
            out.append(phone + stress if phone in VOWELS else phone)
    return _with_stress(out) if any(p[:2] in VOWELS for p in out) else None


def _by_letters(word: str) -> str:
    """Short vowel-less strings are spelled; longer ones read letter by letter, in the sound each letter has most."""
    if len(word) <= 6 or not re.search("[aeiouy]", word):
        return " ".join(_OVERRIDES.get(name, lexicon().get(name, "")) for name in spell(word).split())
    return _with_stress([phone for letter in word for phone in _LETTER_SOUNDS[letter].split("-")])


def _with_stress(names: Sequence[str]) -> str:
    """Exactly one primary stress: the first marked one, else the first vowel."""
    vowels = [i for i, name in enumerate(names) if name[:2] in VOWELS]
    first = next((i for i in vowels if names[i].endswith("1")), vowels[0] if vowels else -1)
    marked = []
    for i, name in enumerate(names):
        if i in vowels:
            level = "1" if i == first else "2" if name.endswith(("1", "2")) and i != first else "0"
            name = name[:2] + (level if name.endswith(("0", "1", "2")) and not (name.endswith("1") and i != first) else
                               "1" if i == first else "0")  # fmt: skip
        marked.append(name)
    return " ".join(marked)


def phones(word: str) -> list[str]:
    """Phones of a word without stress, as the aligner wants them."""
    return [name.rstrip("012") for name in pronounce(word).split()]


def words(text: str) -> list[str]:
    """The spoken words of ``text``, lower case, without punctuation."""
    return re.findall(r"[a-z']+", normalise(text))


def unspeakable(text: str) -> list[str]:
    """Letters of ``text`` without a reading (other scripts), each once, in order; :func:`sentences` drops them."""
    letters = dict.fromkeys(letter for letter in text if letter.isalpha() and not letter.isascii())
    return [letter for letter in letters if not re.search("[a-z]", normalise(letter))]


def sentences(text: str, max_words: int = MAX_WORDS) -> list[str]:
    """Normalised sentences of ``text``; one longer than ``max_words`` is cut at commas, else before a conjunction, else
    where it is full.

    Raises:
        TextError: nothing in ``text`` can be said.
    """
    clean = normalise(text)
    if not re.search("[a-z]", clean):
        raise _nothing_to_say(text)
    pieces = [piece for piece in re.split(r"(?<=[.?!])\s+", clean) if re.search("[a-z]", piece)]
    return [part for piece in pieces for part in _cut(piece, max_words)]


def _nothing_to_say(text: str) -> TextError:
    shown = text.strip()[:40]
    problem = "holds nothing that can be said" if shown else "is empty"
    return TextError(problem, source=f"text {shown!r}" if shown else "text", remedy="give at least one English word")


def _cut(sentence: str, max_words: int) -> Iterator[str]:
    tokens = sentence.split()
    while len(tokens) > max_words:
        window = range(max_words, max(max_words // 3, 1) - 1, -1)
        cut = next((i for i in window if tokens[i - 1].endswith(",")), None)
        if cut is None:
            cut = next((i for i in window if i < len(tokens) and tokens[i] in _JOINTS), max_words)
        yield " ".join(tokens[:cut]).rstrip(",") + ","
        tokens = tokens[cut:]
    yield " ".join(tokens)


def encode(sentence: str) -> TokenSequence:
    """Tokens of one sentence (normalised here if it is not yet).

    A pause opens and closes the sentence and stands at every punctuation mark; the closing one carries a full stop if
    the sentence has no mark of its own.

    Raises:
        TextError: the sentence holds nothing that can be said.
    """
    clean = normalise(sentence)
    spoken = re.findall(r"[a-z']+|[.,?!]", clean)
    items: list[tuple[str, str]] = []  # (word, mark after it)
    for item in spoken:
        if item in PUNCTUATION:
            if items:
                items[-1] = (items[-1][0], item)
        elif item.strip("'"):
            items.append((item, ""))
    if not items:
        raise _nothing_to_say(sentence)
    if not items[-1][1]:
        items[-1] = (items[-1][0], ".")
    return from_words([(pronounce(word).split(), mark) for word, mark in items])


def from_words(items: Sequence[tuple[Sequence[str], str]]) -> TokenSequence:
    """Tokens from ``(phones with stress digits, mark after the word)``; pauses at the ends and at every mark."""
    rows: list[tuple[int, int, bool, int]] = [(0, 0, True, 0)]
    clause = PUNCTUATION.index(items[-1][1])
    marks: list[int] = []
    for _, mark in reversed(items):
        clause = PUNCTUATION.index(mark) if mark else clause
        marks.append(clause)
    for (names, mark), ends in zip(items, reversed(marks), strict=True):
        for place, name in enumerate(names):
            stress = {"1": 1, "2": 2}.get(name[-1], 0)
            rows.append((_PHONE_IDS[name.rstrip("012")], stress, place == len(names) - 1, ends))
        if mark:
            rows.append((0, 0, True, PUNCTUATION.index(mark)))
    if not items[-1][1]:
        rows.append((0, 0, True, 0))
    columns = list(zip(*rows, strict=True))
    return TokenSequence(columns[0], columns[1], columns[2], columns[3])
