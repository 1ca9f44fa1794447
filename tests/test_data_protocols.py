"""The published lists, read as they are."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from crossmodal.data.names import normalise_name
from crossmodal.data.protocols import (
    Clip,
    People,
    identity_sides,
    read_clip,
    read_matching,
    read_mav_celeb,
    read_verification,
)
from crossmodal.errors import DataError


def test_clips() -> None:
    assert read_clip("A.R._Rahman/1.6/RLKKsYiCMvc/0013500.jpg") == Clip("A.R._Rahman", "RLKKsYiCMvc", "0013500.jpg")
    assert read_clip("id10002/C7k7C-PDvAA/00001.wav") == Clip("id10002", "C7k7C-PDvAA", "00001.wav")
    segment = read_clip("A.R._Rahman/gaQq_oV_aLY_0000001.wav")
    assert (segment.video, segment.is_face) == ("gaQq_oV_aLY", False)
    with pytest.raises(DataError):
        read_clip("x.wav")


def test_damaged_lists_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("A.J._Buckley 1\nB_C 3\n")
    with pytest.raises(DataError, match="line 2"):
        list(identity_sides(path))
    path.write_text(
        "id,voice-speaker-id,face-speaker-id,label,voice-path,face-path\n1,2,3,1,A/v_0000001.wav,B/v/1.jpg\n"
    )
    with pytest.raises(DataError, match="line 2: the label contradicts"):
        list(read_verification(path))
    path.write_text("A/v/1.jpg id1/v/1.wav\n")
    with pytest.raises(DataError, match="line 1 has no probe"):
        list(read_matching(path))


def test_the_right_candidate_moves(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("A/1.6/v/1.jpg id1/v/1.wav id2/v/1.wav id3/v/1.wav\n" * 300)
    trials = list(read_matching(path))
    places = Counter(trial.answer for trial in trials)
    assert all(60 < places[k] < 140 for k in range(3))
    assert all(trial.candidates[trial.answer].person == "id1" for trial in trials)
    assert trials == list(read_matching(path))
    assert all(trial.answer == 0 for trial in read_matching(path, shuffle=None))


def test_mav_celeb_lists(tmp_path: Path) -> None:
    path, labels = tmp_path / "Urdu_test.txt", tmp_path / "labels.txt"
    path.write_text("ysuvkz41 voices/Urdu/00000.wav faces/Urdu/00000.jpg\ntog3 voices/Urdu/00001.wav faces/x.jpg \n")
    with pytest.raises(DataError, match="line 1 has no label"):
        list(read_mav_celeb(path))
    labels.write_text("tog3 0\nysuvkz41 1\n")
    first, second = read_mav_celeb(path, labels)
    assert (first.same, second.same) == (True, False)
    assert (first.voice.path, first.voice.language, first.voice.person) == ("voices/Urdu/00000.wav", "Urdu", "")
    labels.write_text("tog3 0\n")
    with pytest.raises(DataError, match="nor has .* one for 'ysuvkz41'"):
        list(read_mav_celeb(path, labels))
    path.write_text(
        "id0001/English/v/0.wav id0001/Urdu/w/1.jpg\na voices/id0001/English/v/0.wav faces/id0002/Urdu/w/1.jpg 0"
    )
    named, labelled = read_mav_celeb(path)
    assert (named.same, labelled.same, labelled.face.person) == (True, False, "id0002")
    assert (named.voice.language, named.voice.video, labelled.face.language) == ("English", "v", "Urdu")
    path.write_text("a id0001/English/v/0.wav id0001/Urdu/w/1.jpg 0\n")
    with pytest.raises(DataError, match="line 1: the label contradicts"):
        list(read_mav_celeb(path))
    path.write_text("a b c d e\n")
    with pytest.raises(DataError, match="line 1 is not"):
        list(read_mav_celeb(path))


def test_people_from_a_table_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "who.csv"
    path.write_text("ids,name,gender,age\nid0001,Ann B,Female,31\nid0002,Carl D,m,\n")
    people = People(path)
    assert (people.attribute("id0001", "gender"), people.attribute("Carl_D", "gender")) == ("female", "male")
    assert (people.attribute("id0001", "age"), people.attribute("id0002", "age")) == ("31", None)
    with pytest.raises(DataError, match="is not in who.csv"):
        people.id_of("id0003")
    path.write_text("name,gender\nAnn,f\n")
    with pytest.raises(DataError, match="without an id: name the column one of"):
        People(path)
    path.write_text("id,gender\na,f\na,m\n")
    with pytest.raises(DataError, match="lists a twice"):
        People(path)


@pytest.mark.data
def test_published_lists(data_root: Path) -> None:
    folder = data_root / "voxceleb_protocols"
    sides = identity_sides(folder / "identity_splits.txt")
    assert Counter(sides.values()) == {"train": 901, "validation": 100, "test": 250}
    people = People(folder)
    trials = list(islice(read_verification(folder / "veriflist/veriflist_test_random_unseenunheard.txt"), 3000))
    for trial in trials:
        assert (people.id_of(trial.voice.person) == people.id_of(trial.face.person)) == trial.same
        assert {sides[normalise_name(clip.person)] for clip in (trial.voice, trial.face)} == {"test"}
    genders = Counter(
        people.attribute(t.voice.person, "gender") == people.attribute(t.face.person, "gender")
        for t in islice(read_verification(folder / "veriflist/veriflist_test_G_unseenunheard.txt"), 2000)
    )
    assert genders[True] > 1900  # same-gender negatives
    for name in ("v2f_U", "v2f_G", "f2v_U", "f2v_G"):
        first = next(read_matching(folder / f"matching/matching_{name}.csv"))
        assert first.probe.is_face == name.startswith("f2v")
        assert people.id_of(first.probe.person) == people.id_of(first.candidates[first.answer].person)
