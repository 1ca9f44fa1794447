"""Rows and their Parquet file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crossmodal.data.manifest import Manifest, Row
from crossmodal.errors import DataError, OutputError


def sample(root: Path) -> Manifest:
    rows = [
        Row("a/1/x", "a", "1", audio=root / "x.wav", text="Grüß Gott “hey”", attributes={"age": "4", "name": "Ä"}),
        Row(
            "a/2/y", "a", "2", face=root / "y.jpg", audio=Path("/elsewhere/y.mp4"), start=1.5, end=2.5, pairing="paired"
        ),
        Row("a/2/z", "a", "2", licence="CC0"),
    ]
    return Manifest(rows, root=root, metadata={"sets": ["a"], "join": {"matched": 2}})


def test_round_trip(tmp_path: Path) -> None:
    manifest = sample(tmp_path / "data")
    (tmp_path / "out").mkdir()
    manifest.write(tmp_path / "out/m.parquet")
    read = Manifest.read(tmp_path / "out/m.parquet")
    assert read.rows == manifest.rows
    assert read.metadata == manifest.metadata
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.parquet"]


def test_data_and_manifest_move(tmp_path: Path) -> None:
    old, out = tmp_path / "data", tmp_path / "out"
    (out / "media").mkdir(parents=True)
    rows = [Row("a", "a", "1", audio=old / "x.wav", face=out / "media/x.jpg")]
    Manifest(rows, root=old).write(out / "m.parquet")
    shutil.move(out, tmp_path / "new")
    (row,) = Manifest.read(tmp_path / "new/m.parquet", root=tmp_path / "moved")
    assert row.audio == tmp_path / "moved/x.wav"
    assert row.face == tmp_path / "new/media/x.jpg"


def test_ids_are_unique() -> None:
    row = Row("a", "a", "1")
    with pytest.raises(DataError, match="more than once, first 'a'"):
        Manifest([row, row])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": ""}, "needs a id"),
        ({"speaker": ""}, "needs a speaker"),
        ({"pairing": "maybe"}, "unknown"),
        ({"start": 2.0, "end": 1.0}, "before it starts"),
    ],
)
def test_rows_are_checked(change: dict, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        Row(**{"id": "a", "corpus": "a", "speaker": "1", **change})


def test_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").touch()
    with pytest.raises(DataError, match=r"y\.mp4: 2 of 3 files"):
        sample(tmp_path).check_files()


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(DataError, match="no such manifest"):
        Manifest.read(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a Parquet file"):
        Manifest.read(tmp_path / "text.parquet")
    table = pyarrow.table({"id": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not a manifest"):
        Manifest.read(tmp_path / "other.parquet")
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"crossmodal": '{"version": 1}'}), tmp_path / "columns.parquet"
    )
    with pytest.raises(DataError, match="other columns"):
        Manifest.read(tmp_path / "columns.parquet")
    with pytest.raises(OutputError):
        sample(tmp_path).write(tmp_path / "absent/m.parquet")
