"""AVSpeech (Ephrat et al. 2018): 3–10 s cuts of 290,000 YouTube videos in which the one face seen is the one heard.

Layout: ``avspeech_train.csv``, ``avspeech_test.csv`` without a header, one clip a line: ``id,start,end,x,y`` —
seconds, and the middle of the face as fractions of width and height. The set has no videos: they are looked for below
the folder by their YouTube id (``videos/<id>.mp4``), and so are clips that were cut already
(``<id>_<start>_<end>.mp4``, also with the times in seconds × 1000 or with six decimals). :func:`fetch` downloads them
with yt-dlp for those who ask for it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crossmodal.data.manifest import Row
from crossmodal.data.sets.layout import AUDIO, VIDEO, children, files, known, read_text, require
from crossmodal.errors import DataError, DependencyError

LICENCE = "AVSpeech: list CC BY 4.0, videos under the terms of their owners"
_ID = re.compile(r"^[\w-]{11}$")


@dataclass(frozen=True)
class Segment:
    """One line of the list."""

    video: str
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    x: float
    """Middle of the face, 0 left to 1 right."""
    y: float
    """Middle of the face, 0 top to 1 bottom."""


def read_list(path: Path) -> list[Segment]:
    """The clips of one CSV.

    Raises:
        DataError: a line that is not ``id,start,end,x,y``.
    """
    segments = []
    for number, cells in enumerate(csv.reader(read_text(path).splitlines()), 1):
        if not cells:
            continue
        try:
            video, start, end, x, y = (cell.strip() for cell in cells)
            segment = Segment(video, float(start), float(end), float(x), float(y))
        except ValueError as error:
            raise DataError(f"line {number} is not id,start,end,x,y", source=path) from error
        if not _ID.match(segment.video) or segment.end <= segment.start:
            raise DataError(f"line {number} has no valid video id or times: {','.join(cells)}", source=path)
        segments.append(segment)
    return segments


def _lists(root: Path) -> list[Path]:
    return [root] if root.is_file() else [p for p in children(root, [".csv"]) if "avspeech" in p.stem.lower()]


def rows(root: Path, *, videos: Path | None = None) -> Iterator[Row]:
    """Rows of the clips whose video is there; the video's id stands for the person, since one video shows one speaker.

    ``attributes`` has ``face_x`` and ``face_y``, which choose among several faces.

    Args:
        root: the folder with the lists (or one list).
        videos: where the videos are; default: anywhere below ``root``.

    Raises:
        DataError: no list, or a damaged one.
    """
    root = Path(root)
    lists = _lists(root if root.is_file() else require(root, "the folder with avspeech_train.csv"))
    if not lists:
        raise DataError(
            "holds no avspeech_*.csv", source=root, remedy="download avspeech_train.csv and avspeech_test.csv"
        )
    place = require(Path(videos), "the folder with the videos") if videos else (root.parent if root.is_file() else root)
    found = {path.stem: path for path in files(place, VIDEO | AUDIO)}
    for table in lists:
        part = "test" if "test" in table.stem.lower() else "train"
        numbers: dict[tuple[str, float], int] = {}
        for segment in read_list(table):
            whole, cut = found.get(segment.video), _cut(found, segment)
            path = cut or whole
            if path is None:
                continue
            # two faces of one video may speak in the same second: number them
            repeat = numbers[segment.video, segment.start] = numbers.get((segment.video, segment.start), 0) + 1
            suffix = f"-{repeat}" if repeat > 1 else ""
            video = path.suffix.lower() in VIDEO
            yield Row(
                id=f"avspeech/{segment.video}/{segment.start:.3f}{suffix}",
                corpus="avspeech",
                speaker=segment.video,
                audio=path,
                face=path if video else None,
                start=None if cut else segment.start,
                end=None if cut else segment.end,
                attributes=known(part=part, face_x=f"{segment.x:.6f}", face_y=f"{segment.y:.6f}"),
                licence=LICENCE,
                pairing="paired" if video else None,
            )


def _cut(found: dict[str, Path], segment: Segment) -> Path | None:
    times = (
        f"{segment.start:.6f}_{segment.end:.6f}",
        f"{segment.start:g}_{segment.end:g}",
        f"{round(segment.start * 1000)}_{round(segment.end * 1000)}",
    )
    return next((found[name] for t in times if (name := f"{segment.video}_{t}") in found), None)


def fetch(root: Path, *, limit: int | None = None, height: int = 480) -> tuple[int, list[tuple[str, str]]]:
    """Download the listed videos that are missing into ``root/videos`` with yt-dlp, which the user has to install.

    Args:
        root: the folder with the lists.
        limit: at most so many videos.
        height: largest height in pixels.

    Returns:
        how many are there now, and (video, reason) for each that could not be fetched.

    Raises:
        DependencyError: yt-dlp is not installed.
        DataError: no list.
    """
    try:
        import yt_dlp
    except ImportError as error:
        raise DependencyError("fetching needs yt-dlp", source="avspeech", remedy="pip install yt-dlp") from error
    lists = _lists(require(Path(root), "the folder with avspeech_train.csv"))
    if not lists:
        raise DataError("holds no avspeech_*.csv", source=root)
    folder = Path(root) / "videos"
    folder.mkdir(exist_ok=True)
    wanted = list(dict.fromkeys(segment.video for table in lists for segment in read_list(table)))[:limit]
    options = {
        "format": f"best[height<={height}][ext=mp4]/best[height<={height}]/best",
        "outtmpl": str(folder / "%(id)s.%(ext)s"),
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
    }
    failed = []
    with yt_dlp.YoutubeDL(options) as downloader:
        for video in _missing(folder, wanted):
            try:
                downloader.download([f"https://www.youtube.com/watch?v={video}"])
            except yt_dlp.utils.DownloadError as error:
                failed.append((video, str(error).splitlines()[0]))
    return len(wanted) - len(failed), failed


def _missing(folder: Path, wanted: Iterable[str]) -> Iterator[str]:
    there = {path.stem for path in children(folder, VIDEO)}
    yield from (video for video in wanted if video not in there)
