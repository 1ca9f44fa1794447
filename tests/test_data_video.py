"""Best frame and sound of videos that are made here, with a detector that knows what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.data.video import VideoOptions, best_frame, duration, sharpness, sound
from crossmodal.errors import DataError, NoAudioStreamError, NoFaceError, UnreadableAudioError, UnreadableImageError
from crossmodal.faces import DetectedFace

RATE = 16_000
CLICKS = (0.4, 1.5, 2.6)


def write_video(
    path: Path,
    draw: Sequence[np.ndarray],
    *,
    fps: int = 10,
    waveform: np.ndarray | None = None,
    sound_starts: float = 0.0,
) -> Path:
    """A video of ``draw`` (H, W, 3) uint8 frames, with lossless sound if there is any."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
        stream.height, stream.width, stream.pix_fmt = *draw[0].shape[:2], "yuv420p"
        audio = container.add_stream("flac", rate=RATE) if waveform is not None else None
        if audio is not None:
            audio.layout = "mono"
        for picture in draw:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
        if audio is not None and waveform is not None:
            frame = av.AudioFrame.from_ndarray((waveform[None] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, round(sound_starts * RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def clicks(seconds: float) -> np.ndarray:
    waveform = np.zeros(round(seconds * RATE), np.float32)
    for time in CLICKS:
        waveform[round(time * RATE) : round(time * RATE) + 80] = 0.8
    return waveform


def frames(boxes: Sequence[Sequence[tuple[int, int, int]]], size: tuple[int, int] = (192, 256)) -> list[np.ndarray]:
    """Bright squares (left, top, side) with a fine pattern on a dark ground, a list of them for each frame."""
    pictures = []
    for squares in boxes:
        picture = np.full((*size, 3), 20, np.uint8)
        for left, top, side in squares:
            patch = 180 + 60 * ((np.indices((side, side)).sum(0) // 4) % 2)
            picture[top : top + side, left : left + side] = patch[..., None]
        pictures.append(picture)
    return pictures


def detect(image: Image.Image) -> list[DetectedFace]:
    """Finds the bright squares."""
    from scipy import ndimage

    labels, _ = ndimage.label(np.asarray(image.convert("L")) > 110)
    found = []
    for rows, columns in ndimage.find_objects(labels):
        left, top, right, bottom = columns.start, rows.start, columns.stop, rows.stop
        if right - left > 8 and bottom - top > 8:
            across, down = right - left, bottom - top
            eyes = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
            found.append(
                DetectedFace(np.array([left, top, right, bottom], float), 0.99, eyes * [across, down] + [left, top])
            )
    return found


def test_the_larger_sharper_face_is_kept(tmp_path: Path) -> None:
    boxes = [[(20, 20, 60)]] * 10 + [[(60, 40, 110)]] * 5 + [[]] * 15
    path = write_video(tmp_path / "v.mkv", frames(boxes))
    best = best_frame(path, detect=detect, options=VideoOptions(candidates=15, margin=0.0))
    assert 1.0 <= best.time < 1.5
    assert best.faces == 1
    assert abs(best.image.width - 110) <= 4  # at full size, cut to the box
    assert abs(best.image.height - 110) <= 4


def test_only_the_clip_is_searched(tmp_path: Path) -> None:
    boxes = [[(60, 40, 110)]] * 10 + [[(20, 20, 60)]] * 10 + [[(60, 40, 110)]] * 10
    path = write_video(tmp_path / "v.mkv", frames(boxes))
    best = best_frame(path, 1.0, 2.0, detect=detect, options=VideoOptions(margin=float("inf")))
    assert 1.0 <= best.time < 2.0
    assert best.image.size == (256, 192)
    assert 4 <= best.looked_at <= 5


def test_candidates_are_spread_and_few(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames([[(60, 40, 110)]] * 60))
    seen: list[Image.Image] = []

    def counting(image: Image.Image) -> list[DetectedFace]:
        seen.append(image)
        return detect(image)

    best = best_frame(path, detect=counting, options=VideoOptions(candidates=5, detect_size=128))
    assert 4 <= len(seen) <= 6
    assert best.looked_at == len(seen)
    assert all(max(image.size) == 128 for image in seen)


def test_several_faces(tmp_path: Path) -> None:
    two = [[(10, 40, 70), (150, 40, 90)]] * 20
    path = write_video(tmp_path / "two.mkv", frames(two))
    largest = best_frame(path, detect=detect, options=VideoOptions(margin=0.0))
    assert largest.faces == 2
    assert abs(largest.image.width - 90) <= 4
    left = best_frame(path, detect=detect, options=VideoOptions(margin=0.0, several="skip"), near=(0.2, 0.4))
    assert abs(left.image.width - 70) <= 4
    with pytest.raises(NoFaceError, match="show several faces"):
        best_frame(path, detect=detect, options=VideoOptions(several="skip"))
    # a frame with one face is enough
    path = write_video(tmp_path / "some.mkv", frames([*two[:10], *([[(60, 40, 110)]] * 10)]))
    assert best_frame(path, detect=detect, options=VideoOptions(several="skip")).time >= 1.0


def test_faces_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", frames([[(20, 20, 24)]] * 10))
    with pytest.raises(NoFaceError, match="only faces under 40 pixels"):
        best_frame(path, detect=detect)
    with pytest.raises(NoFaceError, match="none shows a face"):
        best_frame(write_video(tmp_path / "w.mkv", frames([[]] * 10)), detect=detect)


@pytest.mark.parametrize("starts", [0.0, 0.3])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_keeps_the_clock_of_the_picture(tmp_path: Path, suffix: str, starts: float) -> None:
    waveform = clicks(3.0)[round(starts * RATE) :]
    path = write_video(tmp_path / f"v{suffix}", frames([[]] * 30), waveform=waveform, sound_starts=starts)
    whole = sound(path)
    for time in CLICKS:
        onset = np.flatnonzero(np.abs(whole[round((time - 0.2) * RATE) :]) > 0.3)[0] / RATE - 0.2
        assert abs(onset) < 0.005, (time, onset)
    part = sound(path, 1.25, 2.25)
    assert len(part) == RATE
    assert abs(np.flatnonzero(np.abs(part) > 0.3)[0] / RATE - 0.25) < 0.005
    late = sound(path, 2.5, 9.0)  # outlasts the sound
    assert abs(len(late) / RATE - 0.5) < 0.05
    assert duration(path) == pytest.approx(3.0, abs=0.11)


def test_seeking_far_into_a_video_keeps_sync(tmp_path: Path) -> None:
    waveform = np.zeros(20 * RATE, np.float32)
    waveform[round(17.3 * RATE) : round(17.3 * RATE) + 80] = 0.8
    path = write_video(tmp_path / "long.mp4", frames([[]] * 200), waveform=waveform)
    part = sound(path, 16.5, 18.5)
    assert abs(np.flatnonzero(np.abs(part) > 0.3)[0] / RATE - 0.8) < 0.005


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        best_frame(tmp_path / "text.mp4", detect=detect)
    with pytest.raises(UnreadableAudioError, match="cannot be decoded"):
        sound(tmp_path / "text.mp4")
    with pytest.raises(DataError, match="no such file"):
        sound(tmp_path / "absent.mp4")
    silent = write_video(tmp_path / "silent.mkv", frames([[]] * 10))
    with pytest.raises(NoAudioStreamError):
        sound(silent)
    heard = write_video(tmp_path / "heard.mkv", frames([[]] * 10), waveform=clicks(1.0))
    with pytest.raises(UnreadableAudioError, match="no sound from second 5"):
        sound(heard, 5.0, 6.0)


def test_sharpness_falls_with_blur() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    picture = ndimage.gaussian_filter(rng.random((80, 80)), 1.0)
    values = [sharpness(ndimage.gaussian_filter(picture, sigma)) for sigma in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert sharpness(picture * 100 + 30) == pytest.approx(values[0])  # brightness and contrast do not matter
    assert sharpness(np.ones((9, 9))) == 0.0


@pytest.mark.data
def test_real_videos(data_root: Path) -> None:
    for path in sorted((data_root / "grid_clips").glob("*.mpg")):
        best = best_frame(path)
        assert best.faces == 1
        assert min(best.image.size) > 200
        assert len(sound(path)) == pytest.approx(2.98 * RATE, abs=0.05 * RATE)
