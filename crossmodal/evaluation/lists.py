"""Lists to score association on: the published ones as they are, and plain CSV of your own; the form is recognised.

- **Pairs** (verification): the lists of Learnable PINs; those of MAV-Celeb; CSV with the columns ``voice``, ``face``,
  ``label`` (1: one person, 0: two) and, where known, ``voice_id``, ``face_id``. With both ids the label may be missing.
- **Trials** (matching): the lists of CMPC, right candidate first; CSV with ``probe``, ``candidate_1`` …
  ``candidate_N``, the right one first unless ``answer`` (1 to N) says which, and, where known, ``probe_id``.
- **Items** (retrieval, and matching trials drawn from them): CSV with ``path``, ``id`` and, where the suffix does not
  tell, ``kind`` (``voice`` or ``face``). Every list of pairs or trials that names its people will do as well.

Paths are relative to the folder of the media, or are the keys of a file of embeddings.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from crossmodal.data.names import normalise_name
from crossmodal.data.protocols import (
    Clip,
    MatchingTrial,
    People,
    VerificationTrial,
    read_matching,
    read_mav_celeb,
    read_verification,
)
from crossmodal.data.sets.layout import AUDIO, IMAGES, VIDEO, read_text
from crossmodal.errors import DataError

Form = Literal["pins", "mav-celeb", "pairs", "cmpc", "trials", "items"]
_SAME = {"1": True, "true": True, "0": False, "false": False}
_KINDS: dict[Form, str] = {"pins": "verification", "mav-celeb": "verification", "pairs": "verification"}
_KINDS |= {"cmpc": "matching", "trials": "matching", "items": "retrieval"}


@dataclass(frozen=True)
class Items:
    """Clips whose people are known."""

    voices: list[Clip]
    faces: list[Clip]


def form_of(path: Path) -> Form:
    """Which form a list has, from its first line.

    Raises:
        DataError: it cannot be read, is empty, or has none of the forms.
    """
    first = next((line for line in read_text(path).splitlines() if line.strip()), None)
    if first is None:
        raise DataError("is empty", source=path)
    cells = [cell.strip().lower() for cell in first.split(",")]
    if "voice-speaker-id" in cells or (len(cells) == 6 and cells[3] in ("0", "1")):
        return "pins"
    headed: list[tuple[Form, set[str]]] = [("pairs", {"voice", "face"}), ("trials", {"probe"}), ("items", {"path"})]
    for form, needed in headed:
        if needed <= set(cells):
            return form
    words = first.split()
    if len(cells) == 1 and len(words) > 1:
        return "cmpc" if len(words) > 2 and "/" in words[0] and words[-1] not in _SAME else "mav-celeb"
    raise DataError(
        "is no list that is known here",
        source=path,
        remedy="write CSV with a header: voice,face,label or probe,candidate_1,candidate_2 or path,id",
    )


def read_pairs(path: Path, labels: Path | None = None) -> list[VerificationTrial]:
    """The pairs of a verification list (``labels``: see :func:`crossmodal.data.protocols.read_mav_celeb`).

    Raises:
        DataError: another kind of list, no pairs in it, or a line of another form.
    """
    form = form_of(path)
    if form == "pins":
        pairs = list(read_verification(path))
    elif form == "mav-celeb":
        pairs = list(read_mav_celeb(path, labels))
    elif form == "pairs":
        pairs = list(_csv_pairs(path))
    else:
        raise _other(path, form, "verification")
    return _filled(pairs, path)


def read_trials(path: Path) -> list[MatchingTrial]:
    """The trials of a matching list, candidates in their order: nested 1:N trials take the first wrong ones.

    Raises:
        DataError: another kind of list, no trials in it, a line of another form, or trials of different sizes.
    """
    form = form_of(path)
    if form not in ("cmpc", "trials"):
        raise _other(path, form, "matching")
    trials = list(read_matching(path, shuffle=None) if form == "cmpc" else _csv_trials(path))
    sizes = {len(trial.candidates) for trial in trials}
    if len(sizes) > 1:
        raise DataError(f"has trials of {min(sizes)} and of {max(sizes)} candidates", source=path, remedy="split it")
    return _filled(trials, path)


def read_items(path: Path, people: People | None = None) -> Items:
    """Voices and faces of people: an item list, or what a verification or matching list is made of.

    Raises:
        DataError: a clip without a person, of no known kind, or listed for two people.
    """
    form = form_of(path)
    voices: dict[str, Clip] = {}
    faces: dict[str, Clip] = {}
    if form == "items":
        listed = _csv_items(path)
    elif _KINDS[form] == "verification":
        listed = ((pair_clip, face) for pair in read_pairs(path) for pair_clip, face in _sides(pair))
    else:
        listed = ((clip, clip.is_face) for trial in read_trials(path) for clip in (trial.probe, *trial.candidates))
    for clip, is_face in listed:
        if not clip.person:
            raise DataError(f"does not say whose '{clip.path}' is", source=path, remedy="add the column of ids")
        place = faces if is_face else voices
        known = place.setdefault(clip.path, clip)
        if person_key(known.person, people) != person_key(clip.person, people):
            raise DataError(f"lists '{clip.path}' for {known.person} and for {clip.person}", source=path)
    if not (voices and faces):
        raise DataError(f"has {len(voices)} voices and {len(faces)} faces: needs both", source=path)
    return Items(list(voices.values()), list(faces.values()))


def draw_trials(
    items: Items, people: People | None = None, *, candidates: int = 10, trials: int = 10_000, seed: int = 0
) -> list[MatchingTrial]:
    """Random matching trials in both directions: a probe, a candidate of the same person, and ones of other people.

    Args:
        items: voices and faces to draw from.
        people: who is who, where the list calls a person by several names.
        candidates: in each trial, all of different people.
        trials: in each direction. Probes' people are drawn first, so everybody is asked about equally often.
        seed: of the draws.

    Raises:
        DataError: fewer people than candidates, or nobody with both a voice and a face.
    """
    rng = random.Random(f"trials/{seed}")
    sides = []
    for clips in (items.voices, items.faces):
        groups: dict[str, list[Clip]] = {}
        for clip in clips:
            groups.setdefault(person_key(clip.person, people), []).append(clip)
        sides.append(groups)
    both = sorted(sides[0].keys() & sides[1].keys())
    fewest = min(map(len, sides))
    if not both or fewest < candidates:
        raise DataError(
            f"{len(both)} people with voice and face, {fewest} to choose candidates from: too few for 1:{candidates}",
            source="matching trials",
        )
    drawn = []
    for probes, offered in (sides, sides[::-1]):
        everybody = sorted(offered)
        for _ in range(trials):
            person = rng.choice(both)
            others = [one for one in rng.sample(everybody, candidates) if one != person][: candidates - 1]
            chosen = [rng.choice(offered[one]) for one in (person, *others)]
            drawn.append(MatchingTrial(rng.choice(probes[person]), tuple(chosen), 0))
    return drawn


def person_key(person: str, people: People | None = None) -> str:
    """One key for each person: lists of VoxCeleb call people by id or by name, and ``people`` knows both."""
    if people is not None and person in people:
        return people.id_of(person)
    return normalise_name(person)


def _sides(pair: VerificationTrial) -> Iterator[tuple[Clip, bool]]:
    yield pair.voice, False
    yield pair.face, True


def _other(path: Path, form: Form, wanted: str) -> DataError:
    return DataError(
        f"is a list for {_KINDS[form]}, not for {wanted}", source=path, remedy=f"crossmodal evaluate {_KINDS[form]}"
    )


def _filled(rows: list, path: Path) -> list:
    if not rows:
        raise DataError("lists nothing", source=path)
    return rows


def _table(path: Path, *needed: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every line of a CSV file; ``needed`` cells must be filled."""
    reader = csv.reader(read_text(path).splitlines(), skipinitialspace=True)
    header: list[str] = []
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not header:
            header = [cell.lower() for cell in cells]
            continue
        row = dict(zip(header, cells))
        empty = next((name for name in needed if not row.get(name)), None)
        if len(cells) != len(header) or empty:
            what = f"has no {empty}" if empty else f"has {len(cells)} cells under {len(header)} headings"
            raise DataError(f"line {reader.line_num} {what}", source=path)
        yield reader.line_num, row


def _csv_pairs(path: Path) -> Iterator[VerificationTrial]:
    for number, row in _table(path, "voice", "face"):
        voice, face = _clip(row["voice"], row.get("voice_id", "")), _clip(row["face"], row.get("face_id", ""))
        same = _SAME.get(row.get("label", "").lower())
        named = bool(voice.person and face.person)
        if row.get("label") and same is None:
            raise DataError(f"line {number}: the label is '{row['label']}', not 1 or 0", source=path)
        if same is None and not named:
            raise DataError(f"line {number} has neither a label nor both ids", source=path)
        if named and same is not None and same != (voice.person == face.person):
            raise DataError(f"line {number}: the label contradicts {voice.person} and {face.person}", source=path)
        yield VerificationTrial(voice, face, voice.person == face.person if same is None else same)


def _csv_trials(path: Path) -> Iterator[MatchingTrial]:
    for number, row in _table(path, "probe", "candidate_1", "candidate_2"):
        places = [name for name in row if name.startswith("candidate_") and name[10:].isdigit() and row[name]]
        candidates = [_clip(row[name], row.get(f"{name}_id", "")) for name in sorted(places, key=lambda n: int(n[10:]))]
        answer = row.get("answer") or "1"
        if not answer.isdigit() or not 1 <= int(answer) <= len(candidates):
            raise DataError(f"line {number}: the answer is '{answer}', not 1 to {len(candidates)}", source=path)
        yield MatchingTrial(_clip(row["probe"], row.get("probe_id", "")), tuple(candidates), int(answer) - 1)


def _csv_items(path: Path) -> Iterator[tuple[Clip, bool]]:
    for number, row in _table(path, "path", "id"):
        suffix = PurePosixPath(row["path"]).suffix.lower()
        guess = "face" if suffix in IMAGES else "voice" if suffix in AUDIO | VIDEO else ""
        kind = row.get("kind", "").lower() or guess
        if kind not in ("voice", "face"):
            raise DataError(f"line {number} does not say whether '{row['path']}' is a voice or a face", source=path)
        yield _clip(row["path"], row["id"]), kind == "face"


def _clip(path: str, person: str) -> Clip:
    return Clip(person, "", PurePosixPath(path).name, path)
