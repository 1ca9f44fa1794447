"""Which clips of the starter's speech are held out: one rule, shared by acoustic model, vocoder and evaluation.

A hash of the identity decides, so the split needs no list, does not depend on what else is on the disk and never
changes. What is held out:

- the studio voices (CMU ARCTIC ``bdl`` and ``slt``, ``kathleen``) read the same sentences, so a **sentence** is held
  out for all three of them;
- AN4 and LibriSpeech have many speakers, so a **speaker** is held out with everything they say, and so is every
  resampled pseudo-copy of theirs.

``validation`` chooses checkpoints, ``test`` is only ever reported.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from crossmodal.errors import DataError

Split = Literal["train", "validation", "test"]

STUDIO_VOICES = ("bdl", "slt", "kathleen")
"""Speakers with an hour or so of speech each, whose sentences, not persons, are held out."""

_SHARES: dict[str, tuple[float, float]] = {
    "arctic": (0.03, 0.115),
    "kathleen": (0.03, 0.115),
    "an4": (0.06, 0.25),
    "librispeech": (0.04, 0.17),
}
"""Shares of (validation, test) per corpus, of sentences for the studio voices and of speakers elsewhere."""


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on ``name`` alone."""
    return int.from_bytes(hashlib.sha256(f"starter-3:{name}".encode()).digest()[:8], "big") / 2**64


def split_of(corpus: str, speaker: str, utterance: str) -> Split:
    """The split of one utterance.

    Args:
        corpus: ``arctic``, ``kathleen``, ``an4`` or ``librispeech``.
        speaker: the speaker's id in that corpus (for the studio voices it does not matter).
        utterance: file name without its suffix, e.g. ``arctic_a0001``. The ``@factor`` of a pseudo-copy is ignored.

    Raises:
        DataError: the corpus is not part of the starter's speech.
    """
    if corpus not in _SHARES:
        raise DataError("is not one of the starter's speech sets", source=corpus, remedy=f"use {', '.join(_SHARES)}")
    validation, test = _SHARES[corpus]
    sentence = Path(utterance).name.split("@")[0]
    # AN4 marks a second session of the same person by a 2 after the name.
    person = speaker.split("@")[0]
    person = person.rstrip("2") if corpus == "an4" else person
    unit = f"sentence:{sentence}" if corpus in ("arctic", "kathleen") else f"{corpus}:{person}"
    place = _fraction(unit)
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def speaker_split(corpus: str, speaker: str, utterance: str) -> Split:
    """The split where whole persons are held out, of the studio voices as well: for voice → face.

    There are three of these, told apart by person and not by sentence: ``slt`` is held out as a voice heard in no other
    corpus, the others train.

    Raises:
        DataError: the corpus is not part of the starter's speech.
    """
    if speaker in STUDIO_VOICES:
        return "test" if speaker == "slt" else "train"
    return split_of(corpus, speaker, utterance)


def clip_key(corpus: str, speaker: str, audio: str | Path, factor: float = 1.0) -> str:
    """Name of a clip beside the training data: ``corpus/speaker/file``, and ``@factor`` for a pseudo-copy."""
    key = f"{corpus}/{speaker}/{Path(audio).stem}"
    return key if factor == 1.0 else f"{key}@{factor:.2f}"


def held_out(keys: list[str], split: Split = "test") -> list[str]:
    """Those of ``keys`` (see :func:`clip_key`) that belong to ``split``, sorted."""
    return sorted(key for key in keys if split_of(*_parts(key)) == split)


def _parts(key: str) -> tuple[str, str, str]:
    parts = key.split("/")
    if len(parts) != 3:
        raise DataError("is not a clip key (corpus/speaker/file)", source=key)
    return parts[0], parts[1], parts[2]
