"""Names, splits, protocols and joins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmodal.data import join, splits
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.names import normalise_name
from crossmodal.errors import CheckpointError, DataError, LeakageError


def people(count: int, corpus: str = "c", each: int = 2) -> Manifest:
    return Manifest(
        Row(f"{corpus}/{person}/{k}", corpus, str(person), audio=Path(f"{person}-{k}.wav"))
        for person in range(count)
        for k in range(each)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A.J._Buckley", "a j buckley"),
        ("Beyoncé Knowles", "Beyonce_Knowles"),
        ("Conan O'Brien", "Conan_O’Brien"),
        ("Mia_Wasikowska", "MIA  WASIKOWSKA"),
        ("Søren Kierkegaard", "Soren Kierkegaard"),
        ("Jean-Luc Picard", "Jean_Luc_Picard"),
        ("Weiß", "WEISS"),
        ("Ｆｕｌｌ Width", "full width"),
    ],
)
def test_spellings_of_one_name_meet(one: str, other: str) -> None:
    assert normalise_name(one) == normalise_name(other)


def test_different_names_do_not_meet() -> None:
    assert normalise_name("Chris Evans (actor)") != normalise_name("Chris Evans")
    assert normalise_name("李小龙") != normalise_name("成龙")


@given(st.text())
def test_normalising_twice_changes_nothing(name: str) -> None:
    once = normalise_name(name)
    assert normalise_name(once) == once


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_case_and_separators_do_not_matter(name: str) -> None:
    assert normalise_name(name.upper()) == normalise_name(f" {name.replace(' ', '_')}.")


@given(st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30), st.integers(0, 5))
def test_sides_do_not_depend_on_who_else_is_there(keys: set[str], seed: int) -> None:
    together = {key: splits.side(key, seed=seed) for key in keys}
    for key in keys:
        assert splits.side(key, seed=seed) == together[key]
        assert together[key] in splits.RATIOS


@given(
    st.integers(0, 3), st.sampled_from([{"train": 1.0}, {"train": 2.0, "test": 1.0}, {"a": 0.2, "b": 0.2, "c": 0.6}])
)
def test_shares_are_about_right_and_sides_disjoint(seed: int, ratios: dict[str, float]) -> None:
    manifest = splits.assign(people(600, each=1), ratios=ratios, seed=seed)
    splits.check_disjoint(manifest)
    for name, share in ratios.items():
        expected = share / sum(ratios.values())
        assert abs(len(splits.part(manifest, name)) / 600 - expected) < 0.09  # 4.4 standard deviations


def test_the_same_in_another_process() -> None:
    code = "from crossmodal.data.splits import side; print(' '.join(side(str(k), seed=7) for k in range(50)))"
    for salt in ("0", "123"):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": salt}
        )
        assert result.stdout.split() == [splits.side(str(k), seed=7) for k in range(50)]
    assert splits.fraction("kathleen", 0) == pytest.approx(0.29328148630368595)  # the rule must never change


def test_adding_people_moves_nobody() -> None:
    few, many = splits.assign(people(100)), splits.assign(people(300))
    before = {row.id: row.attributes["split"] for row in few}
    after = {row.id: row.attributes["split"] for row in many}
    assert all(after[key] == value for key, value in before.items())


def test_the_same_name_in_two_sets_goes_to_one_side() -> None:
    rows = [
        Row(f"{corpus}/{k}", corpus, f"{corpus}{k}", attributes={"name": name})
        for k in range(60)
        for corpus, name in (("vox", f"Ann_Bé{k}"), ("vgg", f"ann be {k}"))
    ]
    manifest = splits.assign(Manifest(rows))
    sides: dict[str, set[str]] = {}
    for row in manifest:
        sides.setdefault(normalise_name(row.attributes["name"]), set()).add(row.attributes["split"])
    assert all(len(found) == 1 for found in sides.values())


def test_too_few_people_are_refused() -> None:
    with pytest.raises(DataError, match="leave .* empty"):
        splits.assign(people(1))
    with pytest.raises(DataError, match="cannot be used"):
        splits.assign(people(10), ratios={"train": -1.0})
    with pytest.raises(DataError, match="not split"):
        splits.part(people(2), "train")


def test_overlap_is_found_within_and_between() -> None:
    leaking = [
        Row("a", "c", "1", attributes={"split": "train"}),
        Row("b", "c", "1", attributes={"split": "test"}),
    ]
    with pytest.raises(LeakageError, match="c/1: is in test and train"):
        splits.check_disjoint(Manifest(leaking))
    by_name = (
        [Row("x", "vox", "1", attributes={"name": "Ann Be"})],
        [Row("y", "vgg", "7", attributes={"name": "ann_be"})],
    )
    with pytest.raises(LeakageError, match="name:annbe"):
        splits.check_disjoint(*by_name)
    splits.check_disjoint(people(3, "a"), people(3, "b"))


def test_published_parts_and_lists() -> None:
    rows = [
        Row(f"{k}", "vox1", f"id{k}", attributes={"part": "test" if k > 3 else "dev", "name": f"P {k}"})
        for k in range(6)
    ]
    manifest = splits.assign_parts(Manifest(rows), {"dev": "train", "test": "test"}, name="vox1")
    assert manifest.metadata["protocol"]["counts"] == {
        "test": {"identities": 2, "rows": 2},
        "train": {"identities": 4, "rows": 4},
    }
    listed = splits.assign_from(Manifest(rows), {"p1": "train", "id2": "test", "vox1/id3": "test"}, name="list")
    assert {row.speaker: row.attributes["split"] for row in listed} == {"id1": "train", "id2": "test", "id3": "test"}
    with pytest.raises(LeakageError, match="id1|p1"):
        splits.assign_from(Manifest(rows), {"p1": "train", "id1": "test"}, name="list")
    both = [*rows, Row("again", "vox1", "id0", attributes={"part": "test", "name": "P 0"})]
    with pytest.raises(LeakageError):
        splits.assign_parts(Manifest(both), {"dev": "train", "test": "test"}, name="vox1")


def test_a_checkpoint_refuses_another_protocol() -> None:
    ours, theirs = splits.assign(people(80), seed=1), splits.assign(people(80), seed=2)
    record = splits.protocol_record(splits.part(ours, "train"))
    splits.require_protocol(record, splits.part(ours, "test"))
    with pytest.raises(CheckpointError, match="'hash-1' .* 'hash-2'"):
        splits.require_protocol(record, splits.part(theirs, "test"))
    with pytest.raises(LeakageError, match="trained on"):
        splits.require_protocol(record, splits.part(ours, "train"))
    with pytest.raises(CheckpointError, match="does not say"):
        splits.require_protocol(None, splits.part(ours, "test"))
    assert not any("c/" in digest for digest in record["trained_on"])


def test_fingerprint_depends_on_people_alone(tmp_path: Path) -> None:
    few, many = splits.assign(people(40, each=1)), splits.assign(people(40, each=3))
    assert splits.protocol_fingerprint(few) == splits.protocol_fingerprint(many)
    assert splits.protocol_fingerprint(few) != splits.protocol_fingerprint(splits.assign(people(41, each=1)))
    few.write(tmp_path / "m.parquet")
    read = Manifest.read(tmp_path / "m.parquet")
    assert splits.protocol_fingerprint(splits.part(read, "test")) == splits.protocol_fingerprint(few)
    without = Manifest(read.rows)  # worked out again from the rows
    assert splits.protocol_fingerprint(without) == splits.protocol_fingerprint(few)


def voices_and_faces() -> tuple[Manifest, Manifest]:
    def voice(person: str, **attributes: str) -> Row:
        return Row(f"v/{person}", "voxceleb2", person, audio=Path("a.wav"), attributes=attributes)

    def face(person: str, name: str, k: int = 0) -> Row:
        return Row(f"f/{person}/{k}", "vggface2", person, face=Path("a.jpg"), attributes={"name": name})

    voices = [
        voice("id1", vggface2="n1"),
        voice("id2", name="Béa_O'Neil"),
        voice("id3", name="Nobody Else"),
        voice("id4", name="Twin Name"),
    ]
    faces = [
        face("n1", "Anna One"),
        face("n2", "bea oneil"),
        face("n2", "bea oneil", 1),
        face("n4", "Twin_Name"),
        face("n5", "twin name"),
        face("n6", "Lone Face"),
    ]
    return Manifest(voices), Manifest(faces)


def test_join_matches_by_reference_then_by_name() -> None:
    joined = join.join(*voices_and_faces())
    report = joined.metadata["join"]
    assert (report["matched"], report["by_reference"], report["by_name"]) == (2, 1, 1)
    assert {row.id for row in joined} == {"v/id1", "v/id2", "f/n1/0", "f/n2/0", "f/n2/1"}
    assert report["voice_only"] == ["voxceleb2/id3 (Nobody Else)", "voxceleb2/id4 (Twin Name)"]
    assert "vggface2/n6 (Lone Face)" in report["face_only"]
    assert report["ambiguous"] == ["name:twinname: voxceleb2/id4 and vggface2/n4, vggface2/n5"]
    identity = {row.id: row.identity for row in joined}
    assert identity["v/id1"] == identity["f/n1/0"] == "name:annaone"
    assert identity["v/id2"] == identity["f/n2/1"] == "name:beaoneil"


def test_pairs_carry_both_and_are_stable() -> None:
    joined = join.join(*voices_and_faces())
    pairs = join.pair(joined, seed=3)
    assert [row.id for row in pairs] == ["v/id1", "v/id2"]
    assert all(row.pairing == "paired" and row.face is not None and row.audio is not None for row in pairs)
    assert [row.attributes["picture"] for row in join.pair(joined, seed=3)] == [r.attributes["picture"] for r in pairs]
    assert len({join.pair(joined, seed=s)[1].attributes["picture"] for s in range(20)}) == 2


def test_hq_voxceleb_folders_that_are_ids() -> None:
    voices = Manifest([Row("v", "voxceleb1", "id10001", audio=Path("a"))])
    faces = Manifest([Row("f", "hq_voxceleb", "id10001", face=Path("b"), attributes={"voxceleb": "id10001"})])
    assert join.join(voices, faces).metadata["join"]["by_reference"] == 1


def test_join_refuses_strangers() -> None:
    voices, faces = voices_and_faces()
    with pytest.raises(DataError, match="none of 1 voices and 1 faces"):
        join.join(Manifest(voices.rows[2:3]), Manifest(faces.rows[-1:]))
    with pytest.raises(DataError, match="voices come first"):
        join.join(faces, voices)
