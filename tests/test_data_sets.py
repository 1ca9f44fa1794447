"""Every preparer on a small tree laid out exactly like the set it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossmodal.data import sets
from crossmodal.data.manifest import Row
from crossmodal.data.sets import avspeech, grid, voxceleb
from crossmodal.errors import DataError, DependencyError


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def rows(name: str, root: Path) -> dict[str, Row]:
    return {row.id: row for row in sets.manifest(name, root)}


def test_arctic(tmp_path: Path) -> None:
    folder = "cmu_us_awb_arctic"
    root = tree(
        tmp_path,
        {
            f"{folder}/wav/arctic_a0001.wav": "",
            f"{folder}/wav/arctic_a0002.wav": "",
            f"{folder}/etc/txt.done.data": '( arctic_a0001 "Author of the danger trail." )\n'
            '( arctic_a0002 "He said \\"no\\"." )\n',
            "other/wav/x.wav": "",
        },
    )
    found = rows("arctic", root)
    assert list(found) == ["arctic/awb/arctic_a0001", "arctic/awb/arctic_a0002"]
    row = found["arctic/awb/arctic_a0001"]
    assert (row.speaker, row.text, row.face) == ("awb", "Author of the danger trail.", None)
    assert row.attributes == {"gender": "male", "accent": "Scottish"}
    assert found["arctic/awb/arctic_a0002"].text == 'He said "no".'
    assert rows("arctic", root / folder).keys() == found.keys()  # one voice alone


def test_arctic_names_the_damaged_line(tmp_path: Path) -> None:
    root = tree(tmp_path, {"cmu_us_bdl_arctic/wav/a.wav": "", "cmu_us_bdl_arctic/etc/txt.done.data": "( a hello )\n"})
    with pytest.raises(DataError, match="line 1"):
        rows("arctic", root)


def test_an4(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "wav/an4_clstk/mdcs2/cen1-mdcs2-b.sph": "",
            "wav/an4_clstk/mdcs/cen1-mdcs-b.sph": "",
            "wav/an4test_clstk/fcaw/an406-fcaw-b.sph": "",
            "etc/an4_train.transcription": "<s> W E A N </s> (cen1-mdcs-b)\n",
            "etc/an4_test.transcription": "<s> RUBOUT G M E F THREE NINE </s> (an406-fcaw-b)\n",
        },
    )
    found = rows("an4", root)
    assert found["an4/mdcs/cen1-mdcs-b"].text == "W E A N"
    assert found["an4/fcaw/an406-fcaw-b"].attributes == {"gender": "female", "part": "test", "identity": "an4/fcaw"}
    # two sessions of one man
    assert found["an4/mdcs/cen1-mdcs-b"].identity == found["an4/mdcs2/cen1-mdcs2-b"].identity == "an4/mdcs"


def test_librispeech_and_libritts_share_readers(tmp_path: Path) -> None:
    speakers = ";ID  |SEX| SUBSET           |MINUTES| NAME\n19   | F | train-clean-100  | 25.19 | Kara Shallenberg\n"
    speech = tree(
        tmp_path / "LibriSpeech",
        {
            "SPEAKERS.TXT": speakers,
            "train-clean-100/19/198/19-198-0000.flac": "",
            "train-clean-100/19/198/19-198-0001.flac": "",
            "train-clean-100/19/198/19-198.trans.txt": "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n",
        },
    )
    found = rows("librispeech", speech)
    row = found["librispeech/19/19-198-0001"]
    assert row.text == "THIS LITTLE WORK"
    assert row.attributes["name"] == "Kara Shallenberg"
    assert (row.attributes["gender"], row.attributes["part"]) == ("female", "train-clean-100")
    assert row.licence == "CC BY 4.0"
    assert rows("librispeech", speech / "train-clean-100").keys() == found.keys()

    tts = tree(
        tmp_path / "LibriTTS",
        {
            "speakers.tsv": "READER\tGENDER\tSUBSET\tNAME\n19\tF\ttrain-clean-100\tKara Shallenberg\n",
            "train-clean-100/19/198/19_198_000000_000000.wav": "",
            "train-clean-100/19/198/19_198_000000_000000.normalized.txt": "Northanger Abbey.",
            "train-clean-100/19/198/19_198_000000_000000.original.txt": "NORTHANGER ABBEY.",
        },
    )
    (only,) = sets.manifest("libritts", tts)
    assert (only.text, only.speaker, only.attributes["gender"]) == ("Northanger Abbey.", "19", "female")
    assert only.identity == row.identity == "librispeech/19"


def test_librispeech_flat(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {"train-clean-100/103-1240-0000.opus": "", "train-clean-100/SPEAKERS.TXT": "103 | F | x | 1 | K\n"}
    )
    (row,) = sets.manifest("librispeech", root)
    assert (row.speaker, row.attributes["part"], row.attributes["gender"]) == ("103", "train-clean-100", "female")


@pytest.mark.parametrize("microphone", ["mic1", "mic2"])
def test_vctk(tmp_path: Path, microphone: str) -> None:
    root = tree(
        tmp_path,
        {
            "wav48_silence_trimmed/p225/p225_001_mic1.flac": "",
            "wav48_silence_trimmed/p225/p225_001_mic2.flac": "",
            "wav48_silence_trimmed/s5/s5_001_mic1.flac": "",
            "wav48_silence_trimmed/s5/s5_001_mic2.flac": "",
            "txt/p225/p225_001.txt": "Please call Stella.\n",
            "speaker-info.txt": "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n"
            "p225  23  F    English    Southern  England\ns5 24 M British (mic2 files unavailable)\n",
        },
    )
    found = {row.speaker: row for row in sets.manifest("vctk", root, microphone=microphone)}
    assert found["p225"].id == f"vctk/p225/p225_001_{microphone}"
    assert found["p225"].text == "Please call Stella."
    assert found["p225"].attributes == {
        "age": "23",
        "gender": "female",
        "accent": "English",
        "region": "Southern England",
    }
    assert found["s5"].text is None
    assert found["s5"].attributes == {"age": "24", "gender": "male", "accent": "British"}


def test_vctk_080(tmp_path: Path) -> None:
    table = "ID  AGE  GENDER  ACCENTS  REGION \n225  23  F    English    Southern  England\n"
    root = tree(tmp_path, {"wav48/p225/p225_001.wav": "", "speaker-info.txt": table})
    (row,) = sets.manifest("vctk", root)
    assert (row.id, row.attributes["age"]) == ("vctk/p225/p225_001", "23")


def test_grid(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "s1/bbaf2n.mpg": "",
            "s4/video/mpg_6000/lrwp9a.mpg": "",
            "s4/video/mpg_vcd/lrwp9a.mpg": "",
            "audio_25k/s1/bbaf2n.wav": "",
            "audio_25k/s9/sgit3p.wav": "",
            "alignments/s1/bbaf2n.align": "0 23750 sil\n23750 29500 bin\n",
            "s1/readme.mpg": "",
        },
    )
    found = rows("grid", root)
    assert set(found) == {"grid/s1/bbaf2n", "grid/s4/lrwp9a", "grid/s9/sgit3p"}
    first, second, third = (found[f"grid/{name}"] for name in ("s1/bbaf2n", "s4/lrwp9a", "s9/sgit3p"))
    assert first.text == "bin blue at f two now"
    assert first.pairing == "paired"
    assert first.audio == first.face == root / "s1/bbaf2n.mpg"
    assert (first.attributes["gender"], second.attributes["gender"]) == ("male", "female")
    assert third.text == "set green in t three please"
    assert third.face is None
    assert third.pairing is None
    assert grid.word_times(root / first.attributes["align"]) == [(0.0, 0.95, "sil"), (0.95, 1.18, "bin")]


def test_grid_codes_every_letter_but_w() -> None:
    assert grid.sentence("bgwz0n") is None
    assert grid.sentence("pwwzzs") == "place white with z zero soon"
    assert grid.sentence("bbaw2n") is None  # GRID has no letter w
    assert grid.sentence("bbaf2nn") is None


def test_london_faces(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "neutral_front/001_03.jpg": "",
            "neutral_front/001_03.tem": "189",
            "smiling_front/001_08.jpg": "",
            "london_faces_info.csv": "face_id,face_age,face_gender,face_eth\n001,24,female,white\n",
        },
    )
    found = rows("london_faces", root)
    row = found["london_faces/001/001_03"]
    assert row.attributes == {
        "gender": "female",
        "age": "24",
        "ethnicity": "white",
        "view": "neutral_front",
        "template": "neutral_front/001_03.tem",
    }
    assert "template" not in found["london_faces/001/001_08"].attributes
    assert row.audio is None


def test_voxceleb1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
            "id10001\tA.J._Buckley\tm\tIreland\tdev\nid10270\tEartha_Kitt\tf\tUSA\ttest\n",
            "dev/wav/id10001/1zcIwhmdeo4/00001.wav": "",
            "test/wav/id10270/5r0dWxy17C8/00002.wav": "",
            "unzippedFaces/A.J._Buckley/1.6/1zcIwhmdeo4/0000375.jpg": "",
            "wav/notes.wav": "",
        },
    )
    found = rows("voxceleb1", root)
    assert set(found) == {
        "voxceleb1/id10001/1zcIwhmdeo4/00001",
        "voxceleb1/id10270/5r0dWxy17C8/00002",
        "voxceleb1/id10001/1zcIwhmdeo4/frame-0000375",
    }
    clip = found["voxceleb1/id10001/1zcIwhmdeo4/00001"]
    assert clip.attributes == {
        "name": "A.J. Buckley",
        "gender": "male",
        "nationality": "Ireland",
        "part": "dev",
        "video": "1zcIwhmdeo4",
    }
    assert found["voxceleb1/id10270/5r0dWxy17C8/00002"].attributes["part"] == "test"
    frame = found["voxceleb1/id10001/1zcIwhmdeo4/frame-0000375"]
    assert frame.audio is None
    assert frame.identity == clip.identity


@pytest.mark.parametrize("table", ["spaces", "names"])
def test_voxceleb2(tmp_path: Path, table: str) -> None:
    tables = {
        "spaces": "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \n",
        "names": "VoxCeleb2 ID,VGGFace2 ID,Gender,Set,Name\nid00012,n000012,m,dev,Aaron_Yoo\n",
    }
    root = tree(
        tmp_path,
        {
            "vox2_meta.csv": tables[table],
            "dev/aac/id00012/21Uxsk56VDQ/00001.m4a": "",
            "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4": "",
            "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4": "",
        },
    )
    found = rows("voxceleb2", root)
    both = found["voxceleb2/id00012/21Uxsk56VDQ/00001"]
    assert both.audio is not None
    assert both.face is not None
    assert (both.audio.suffix, both.face.suffix, both.pairing) == (".m4a", ".mp4", "paired")
    assert (both.attributes["vggface2"], both.attributes["gender"], both.attributes["part"]) == (
        "n000012",
        "male",
        "dev",
    )
    assert both.attributes.get("name") == ("Aaron Yoo" if table == "names" else None)
    assert found["voxceleb2/id00012/21Uxsk56VDQ/00002"].audio == found["voxceleb2/id00012/21Uxsk56VDQ/00002"].face


def test_clip_of_needs_the_layout() -> None:
    assert voxceleb.clip_of(Path("a/id10001/v/00001.wav")) == voxceleb.Clip("id10001", "v", "00001")
    assert voxceleb.clip_of(Path("a/id1/v/00001.wav")) is None
    assert voxceleb.clip_of(Path("00001.wav")) is None


def test_vggface2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "meta/identity_meta.csv": "Class_ID, Name, Sample_Num, Flag, Gender\n"
            'n000002, "A_Fine_Frenzy", 315, 1, f\nn000001, "14th_Dalai_Lama", 424, 0, m\n',
            "train/n000002/0001_01.jpg": "",
            "test/n000001/0002_01.jpg": "",
            "test/n000001/readme.txt": "",
        },
    )
    found = rows("vggface2", root)
    assert set(found) == {"vggface2/n000002/0001_01", "vggface2/n000001/0002_01"}
    assert found["vggface2/n000002/0001_01"].attributes == {
        "name": "A Fine Frenzy",
        "gender": "female",
        "part": "train",
    }
    assert found["vggface2/n000001/0002_01"].attributes["part"] == "test"


def test_hq_voxceleb(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
            "id10001\tA.J._Buckley\tm\tIreland\tdev\n",
            "vox1/masked_faces/A.J._Buckley/0.jpg": "",
            "vox2/masked_faces/id00012/0.jpg": "",
        },
    )
    found = rows("hq_voxceleb", root)
    named = found["hq_voxceleb/A.J._Buckley/0"].attributes
    assert (named["voxceleb"], named["gender"], named["part"]) == ("id10001", "male", "vox1")
    assert found["hq_voxceleb/id00012/0"].attributes == {"voxceleb": "id00012", "part": "vox2"}


def test_mav_celeb(tmp_path: Path) -> None:
    files = {"voices/id0001/Urdu/video1/00000.wav": "", "faces/id0001/English/video2/0001.jpg": ""}
    found = list(rows("mav_celeb", tree(tmp_path, files)).values())
    assert {row.attributes["language"] for row in found} == {"Urdu", "English"}
    assert len({row.identity for row in found}) == 1


def test_folder(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "people.csv": "id,Name,Gender,Age\nanna,Anna B,w,41\n",
            "anna/voice/a.wav": "",
            "anna/voice/a.txt": "Good morning.\n",
            "anna/face/a.png": "",
            "ben/talk.mp4": "",
            "ben/notes.txt": "",
        },
    )
    found = rows("folder", root)
    assert set(found) == {"folder/anna/voice/a.wav", "folder/anna/face/a.png", "folder/ben/talk.mp4"}
    voice = found["folder/anna/voice/a.wav"]
    assert voice.text == "Good morning."
    assert voice.attributes == {"name": "Anna B", "gender": "female", "age": "41"}
    assert voice.identity == found["folder/anna/face/a.png"].identity
    assert found["folder/ben/talk.mp4"].pairing == "paired"


def test_avspeech(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "avspeech_train.csv": "0eWSjWjg3iM,90.000000,93.100000,0.500000,0.312500\n"
            "0eWSjWjg3iM,90.000000,96.500000,0.2,0.3\nAAAAAAAAAAA,1.0,4.5,0.1,0.2\n",
            "avspeech_test.csv": "BBBBBBBBBBB,12.5,16.0,0.4,0.4\n",
            "videos/0eWSjWjg3iM.mp4": "",
            "cuts/BBBBBBBBBBB_12.500000_16.000000.mp4": "",
        },
    )
    found = rows("avspeech", root)
    assert set(found) == {
        "avspeech/0eWSjWjg3iM/90.000",
        "avspeech/0eWSjWjg3iM/90.000-2",
        "avspeech/BBBBBBBBBBB/12.500",
    }
    first = found["avspeech/0eWSjWjg3iM/90.000"]
    assert (first.start, first.end) == (90.0, 93.1)
    assert (first.attributes["face_x"], first.attributes["part"]) == ("0.500000", "train")
    cut = found["avspeech/BBBBBBBBBBB/12.500"]
    assert (cut.start, cut.end, cut.attributes["part"]) == (None, None, "test")


def test_avspeech_names_the_damaged_line(tmp_path: Path) -> None:
    root = tree(tmp_path, {"avspeech_train.csv": "0eWSjWjg3iM,1.0,2.0,.5,.5\n0eWSjWjg3iM,5.0,2.0,.5,.5\n"})
    with pytest.raises(DataError, match="line 2"):
        rows("avspeech", root)


def test_avspeech_fetch_needs_yt_dlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yt_dlp", None)
    with pytest.raises(DependencyError, match="pip install yt-dlp"):
        avspeech.fetch(tmp_path)


@pytest.mark.parametrize("name", sets.NAMES)
def test_wrong_folder_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no such folder"):
        sets.manifest(name, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        sets.manifest(name, tmp_path / "empty")


def test_unknown_set_lists_the_known() -> None:
    with pytest.raises(DataError, match="librispeech"):
        sets.preparer("librispech")


@pytest.mark.data
def test_development_data(data_root: Path) -> None:
    expected = {
        "arctic": ("cmu_arctic", 2264, 2),
        "kathleen": ("kathleen", 1132, 1),
        "an4": ("an4", 948, 73),
        "librispeech": ("librispeech", 251, 251),
        "london_faces": ("london_faces", 180, 90),
        "grid": ("grid_clips", 4, 4),
    }
    for name, (folder, count, people) in expected.items():
        manifest = sets.manifest(name, data_root / folder)
        manifest.check_files()
        assert (len(manifest), len(manifest.identities())) == (count, people), name
