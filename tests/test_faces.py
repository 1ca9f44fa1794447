"""Pictures in, faces found, chips cut: formats, errors, warnings, geometry against independent references."""

from __future__ import annotations

import importlib.util
import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter

from crossmodal import face_detector, images
from crossmodal.errors import (
    ConfigError,
    CrossmodalError,
    DependencyError,
    InputWarning,
    NoFaceError,
    UnreadableImageError,
)
from crossmodal.face_detector import find_faces, suppress
from crossmodal.faces import (
    CHIP_SIZES,
    DetectedFace,
    align,
    align_batch,
    detect,
    find_face,
    load_image,
    quality_warnings,
    read_face,
    whole_image_face,
)
from tests.generated import drawn_face

TEMPLATE = np.array([[46.26, 46.48], [102.35, 46.34], [74.16, 75.33], [51.98, 106.80], [96.74, 106.75]])


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return drawn_face(256)


@pytest.fixture(scope="module")
def face(photo: Image.Image) -> DetectedFace:
    (found,) = detect(photo)
    return found


def difference(one: Image.Image | np.ndarray, other: Image.Image | np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)).mean())


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand (colour 0 grey, 2 RGB), for bit depths and sizes that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- reading ---


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("jpg", 3), ("png", 0), ("webp", 3), ("gif", 8), ("bmp", 0), ("tiff", 0), ("ppm", 0)]
)
def test_common_formats(tmp_path: Path, photo: Image.Image, suffix: str, tolerance: float) -> None:
    photo.save(tmp_path / f"face.{suffix}")
    image = load_image(tmp_path / f"face.{suffix}")
    assert image.mode == "RGB"
    assert image.size == photo.size
    assert difference(image, photo) <= tolerance


def test_heic(tmp_path: Path, photo: Image.Image) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(photo).save(tmp_path / "face.heic", quality=90)
    assert difference(load_image(tmp_path / "face.heic"), photo) < 4


def test_heic_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DependencyError, match="pillow-heif"):
        load_image(b"\x00\x00\x00\x18ftypheic" + bytes(64))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :20, 0] = 255  # red corner at the top left
    upright[30:, :, 2] = 255  # blue bottom
    stored = {  # what a camera stores for each orientation, after the EXIF standard
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(file, "PNG", exif=exif)
    assert np.array_equal(np.asarray(load_image(file.getvalue())), upright)


def test_grey_palette_and_one_bit(photo: Image.Image) -> None:
    for mode in ("L", "LA", "P"):
        converted = photo.convert(mode)
        assert difference(load_image(converted), converted.convert("RGB")) == 0
    assert set(np.unique(np.asarray(load_image(photo.convert("1"))))) == {0, 255}


def test_transparency_becomes_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :, 0] = 200
    pixels[:, :3, 3] = 255
    pixels[0, 5, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for image in (load_image(tmp_path / "a.png"), load_image(pixels)):
        assert image.getpixel((0, 0)) == (200, 0, 0)
        assert image.getpixel((5, 3)) == (255, 255, 255)
        assert np.allclose(np.asarray(image)[0, 5], (227, 127, 127), atol=1)
    palette = Image.fromarray(pixels[..., :3]).convert("P")
    palette.save(tmp_path / "p.gif", transparency=palette.getpixel((0, 0)))
    assert load_image(tmp_path / "p.gif").getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_jpeg(tmp_path: Path, photo: Image.Image) -> None:
    photo.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert difference(load_image(tmp_path / "print.jpg"), photo) < 4


def test_16_bit_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)
    expected = np.round(ramp / 257)
    rows = b"".join(b"\x00" + ramp.astype(">u2").tobytes() for _ in range(3))
    grey = np.asarray(load_image(png(64, 3, 16, 0, rows)))
    assert np.abs(grey[1, :, 0] - expected).max() <= 1
    rows = b"".join(b"\x00" + np.repeat(ramp, 3).astype(">u2").tobytes() for _ in range(3))
    colour = np.asarray(load_image(png(64, 3, 16, 2, rows)))
    assert np.abs(colour[1, :, 1] - expected).max() <= 1
    assert np.array_equal(np.asarray(load_image(ramp[None]))[0, :, 2], expected)
    tiff = io.BytesIO()
    Image.fromarray(np.tile(ramp, (3, 1))).save(tiff, "TIFF")
    assert np.abs(np.asarray(load_image(tiff.getvalue()))[1, :, 0] - expected).max() <= 1


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        red, _, blue = np.asarray(load_image(tmp_path / name)).reshape(-1, 3).mean(axis=0)
        assert red > 200 > 50 > blue


def test_embedded_colour_profile_is_applied() -> None:
    from PIL import ImageCms

    image = Image.new("RGB", (8, 8), (120, 60, 200))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=lab)
    assert difference(load_image(file.getvalue()), image) <= 1
    image.save(file := io.BytesIO(), "PNG", icc_profile=b"not a profile")
    assert difference(load_image(file.getvalue()), image) == 0


def test_standard_input_and_open_files(tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    photo.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert difference(load_image("-"), photo) == 0
    with open(tmp_path / "a.png", "rb") as file:
        assert difference(load_image(file), photo) == 0
    with open(tmp_path / "a.png", encoding="latin-1") as file, pytest.raises(UnreadableImageError, match="rb"):
        load_image(file)


def test_unusable_files_are_named(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "whole.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    expected = {
        "truncated": "truncated",
        "text": "not a picture",
        "empty": "empty",
        "folder": "folder",
        "none": "exist",
    }
    for name, problem in expected.items():
        with pytest.raises(UnreadableImageError, match=problem) as caught:
            load_image(tmp_path / f"{name}.jpg")
        assert str(tmp_path / f"{name}.jpg") in str(caught.value)
    with pytest.raises(UnreadableImageError):
        load_image("nul\0byte.jpg")


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_with_their_pixel_count(width: int, height: int) -> None:
    with pytest.raises(UnreadableImageError, match=f"{width * height:,} pixels"):
        load_image(png(width, height, 8, 2, b""))


def test_scripts_in_pictures_are_not_run() -> None:
    with pytest.raises(UnreadableImageError):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n")


# --- arrays ---


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.float64, np.int64, np.bool_, np.complex64, np.int8]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    )
)
def test_any_array_is_a_picture_or_a_typed_error(array: np.ndarray) -> None:
    try:
        image = load_image(array)
    except CrossmodalError:
        return
    assert image.mode == "RGB"
    assert image.width * image.height > 0


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_every_way_to_write_the_same_pixels_gives_the_same_picture(pixels: np.ndarray) -> None:
    expected = np.asarray(load_image(pixels))
    assert np.array_equal(expected, pixels)
    same = [pixels.astype(np.uint16) * 257, pixels / 255, (pixels / 255).astype(np.float32), pixels.astype(int)]
    opaque = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=-1)
    if pixels.max() > 1:
        same.append(pixels.astype(np.float32))  # 0–255
    for other in [*same, opaque]:
        assert np.array_equal(np.asarray(load_image(other)), pixels)


def test_tensors_and_channels_first() -> None:
    import torch

    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for source in (tensor, tensor.float() / 255, (tensor.float() / 255).requires_grad_(True), tensor.numpy()):
        assert np.array_equal(np.asarray(load_image(source)), pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 300.0])
def test_values_that_are_no_pixels(value: float) -> None:
    with pytest.raises(UnreadableImageError, match="NaN|negative|up to 300"):
        load_image(np.full((4, 4, 3), value))


# --- finding ---


@pytest.mark.parametrize("size", [128, 256, 700])
def test_a_drawn_face_is_found(size: int) -> None:
    (found,) = detect(drawn_face(size, seed=1))
    eyes = found.points[:2] / size
    assert np.allclose(eyes[:, 1], 0.46, atol=0.02)
    assert np.allclose(eyes[:, 0], [0.395, 0.605], atol=0.025)
    assert found.score > 0.99


def test_large_pictures_are_reduced_and_coordinates_kept(photo: Image.Image, face: DetectedFace) -> None:
    (large,) = detect(photo.resize((2560, 2560), Image.Resampling.LANCZOS))
    assert np.abs(large.points / 10 - face.points).max() < 4


def test_a_face_that_fills_the_picture(photo: Image.Image, face: DetectedFace) -> None:
    left, top, right, bottom = face.box.astype(int)
    tight = photo.crop((left + 6, top + 6, right - 6, bottom - 6))
    found = find_face(tight)
    assert np.abs(found.points + np.array([left + 6, top + 6]) - face.points).max() < 10


@pytest.fixture(scope="module")
def crowd() -> Image.Image:
    picture = Image.new("RGB", (520, 300), (190, 196, 204))
    picture.paste(drawn_face(150, 2), (20, 120))
    picture.paste(drawn_face(280, 3), (220, 10))
    return picture


def test_several_faces_warn_and_the_largest_is_used(crowd: Image.Image) -> None:
    found = detect(crowd)
    assert len(found) == 2
    assert found[0].area > found[1].area
    with pytest.warns(InputWarning, match=r"x\.jpg: 2 faces.*--face-index"):
        assert find_face(crowd, source="x.jpg").points[0, 0] > 220
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_face(crowd, index=1).points[0, 0] < 220
    for index in (2, -1):
        with pytest.raises(NoFaceError, match=f"no face number {index}, 2 faces found.*0 to 1"):
            find_face(crowd, index=index, source="x.jpg")


def test_detector_finds_what_facenet_pytorch_finds(photo: Image.Image, crowd: Image.Image) -> None:
    from facenet_pytorch import MTCNN

    reference = MTCNN(keep_all=True)
    small = crowd.resize((crowd.width // 2, crowd.height // 2))
    for picture, smallest, count in ((photo, 32, 1), (crowd, 32, 2), (small, 16, 2)):
        reference.min_face_size = smallest
        boxes, scores, points = (np.asarray(part, dtype=float) for part in reference.detect(picture, landmarks=True))
        order = np.argsort(-scores)
        found = find_faces(np.asarray(picture), smallest)
        assert len(found.boxes) >= count
        assert np.allclose(found.boxes, boxes[order], atol=1e-2)
        assert np.allclose(found.scores, scores[order], atol=1e-4)
        assert np.allclose(found.points, points[order], atol=1e-2)


def test_suppression_against_torchvision() -> None:
    from torchvision.ops import nms

    generator = np.random.default_rng(0)
    low = generator.uniform(0, 60, (300, 2))
    boxes = np.concatenate([low, low + generator.uniform(1, 40, (300, 2))], axis=1).astype(np.float32)
    scores = generator.random(300).astype(np.float32)
    for overlap in (0.3, 0.5, 0.7):
        expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), overlap).numpy()
        assert np.array_equal(suppress(boxes, scores, overlap), expected)
    inner = np.array([[0, 0, 99, 99], [10, 10, 39, 39], [60, 60, 139, 139]], dtype=np.float32)
    assert suppress(inner, np.array([0.9, 0.8, 0.7]), 0.7).tolist() == [0, 1, 2]  # 9 %, 25 % of the smaller
    assert suppress(inner, np.array([0.9, 0.8, 0.7]), 0.7, of_smaller=True).tolist() == [0, 2]


def test_candidates_outside_the_picture_spoil_nothing(photo: Image.Image) -> None:
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
    boxes = np.array([[20, 20, 90, 90], [-60, 5, -3, 40], [photo.width + 4, 5, photo.width + 40, 60]], np.float32)
    inside, crops = face_detector._crops(pixels, boxes, 24)
    assert np.array_equal(inside, boxes[:1])
    assert crops.shape == (1, 3, 24, 24)
    assert len(find_faces(np.full((9, 400, 3), 128, np.uint8), 32).boxes) == 0


def test_detecting_loads_neither_torchvision_nor_the_compiler(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "face.png")
    code = (
        "import sys\nfrom crossmodal.face2speech import Face2Speech\n"
        f"Face2Speech.from_pretrained().face_feature({str(tmp_path / 'face.png')!r})\n"
        "print([m for m in ('torchvision', 'torch._dynamo', 'facenet_pytorch', 'requests') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_detector_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    face_detector._weights.cache_clear()
    with pytest.raises(DependencyError, match=r"facenet_pytorch: is not installed: pip install .*facenet-pytorch"):
        find_faces(np.zeros((64, 64, 3), np.uint8), 32)


def test_no_face_says_so_in_one_line() -> None:
    with pytest.raises(NoFaceError) as caught:
        find_face(Image.new("RGB", (1350, 900), (90, 120, 80)), source="x.jpg")
    assert str(caught.value) == "no face found in x.jpg (1350×900): crop closer or pass --no-detect"
    assert caught.value.source == "x.jpg"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (15, 15), (40, 40)])
def test_tiny_pictures_hold_no_face(size: tuple[int, int]) -> None:
    with pytest.raises(NoFaceError):
        find_face(Image.new("RGB", size, "white"))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_pictures_lying_on_their_side_are_turned(photo: Image.Image, face: DetectedFace, turns: int) -> None:
    turned = Image.fromarray(np.rot90(np.asarray(photo), -turns).copy())
    with pytest.warns(InputWarning, match="turned upright"):
        found = find_face(turned, source="x.jpg")
    assert found.turns == turns
    for space in CHIP_SIZES:
        assert difference(align(turned, found, space), align(photo, face, space)) < 6  # crops start at whole pixels


def test_tiny_blurred_and_profile_faces_warn(photo: Image.Image, face: DetectedFace) -> None:
    assert quality_warnings(photo, face) == []
    tiny = drawn_face(72)
    with pytest.warns(InputWarning, match="tiny"):
        find_face(tiny)
    blurred = drawn_face(400).filter(ImageFilter.GaussianBlur(9))
    with pytest.warns(InputWarning, match="blurred"):
        find_face(blurred)
    points = face.points.copy()
    points[2, 0] += 0.5 * face.eye_distance
    (problem,) = quality_warnings(photo, DetectedFace(face.box, 1.0, points))
    assert "side" in problem


# --- aligning ---


def test_dlib_chip_puts_the_points_on_the_template() -> None:
    chip_y, chip_x = np.mgrid[:150, :150] + 0.5
    y, x = np.mgrid[:900, :900] + 0.5
    for angle, scale in ((0.0, 1.0), (0.4, 2.5), (-2.0, 0.6)):
        rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = TEMPLATE @ rotation.T + [400, 380]
        for (px, py), (tx, ty) in zip(points, TEMPLATE):  # one soft dot at a time
            dot = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (3 * scale) ** 2))
            found = DetectedFace(np.zeros(4), 1.0, points)
            weight = align(load_image(dot.round().astype(np.uint8)), found, "dlib-128")[..., 0].astype(float)
            assert (weight * chip_x).sum() / weight.sum() == pytest.approx(tx, abs=0.1)
            assert (weight * chip_y).sum() / weight.sum() == pytest.approx(ty, abs=0.1)


def test_chips_do_not_depend_on_the_size_of_the_photo(photo: Image.Image) -> None:
    large = drawn_face(512).resize((4000, 4000), Image.Resampling.BICUBIC)
    points = detect(drawn_face(512))[0].points
    small_face, large_face = (DetectedFace(np.zeros(4), 1.0, points * s) for s in (1.0, 4000 / 512))
    chips = align(drawn_face(512), small_face, "dlib-128"), align(large, large_face, "dlib-128")
    assert difference(*chips) < 1.5


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((3000, 3000), np.uint8)
    stripes[:, ::3] = 255  # far finer than the chip's pixels; the mean is 85
    picture = load_image(stripes)
    found = DetectedFace(np.array([500, 500, 2500, 2500.0]), 1.0, TEMPLATE * 16 + 300)
    for space in CHIP_SIZES:
        chip = align(picture, found, space)[8:-8, 8:-8]
        assert abs(float(chip.mean()) - 85) < 2
        assert chip.std() < 6


def test_facenet_chip_is_that_of_facenet_pytorch(photo: Image.Image, face: DetectedFace) -> None:
    from facenet_pytorch import extract_face

    edge = DetectedFace(face.box - [90, 40, 90, 40], 1.0, face.points)  # reaches beyond the picture
    for found in (face, edge):
        expected = extract_face(photo, found.box, image_size=160, margin=14).permute(1, 2, 0).numpy()
        assert np.array_equal(align(photo, found, "facenet-512"), expected)


def test_vggface_chip_is_a_square_with_context(photo: Image.Image, face: DetectedFace) -> None:
    chip = align(photo, face, "vggface-4096")
    side = 1.3 * (face.box[2:] - face.box[:2]).max()
    low = (face.box[:2] + face.box[2:]) / 2 - side / 2
    box = (*low, *(low + side))
    assert difference(chip, photo.resize((224, 224), Image.Resampling.LANCZOS, box=box)) < 3
    corner = DetectedFace(np.array([-30.0, -30, 60, 60]), 1.0, face.points)
    assert align(photo, corner, "vggface-4096").shape == (224, 224, 3)
    assert np.ptp(align(Image.new("RGB", (50, 50), "red"), corner, "vggface-4096")[..., 1]) == 0  # the edge repeats


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float64, (5, 2), elements=st.floats(-300, 300)),
    hnp.arrays(np.float64, (4,), elements=st.floats(-300, 300)),
    st.sampled_from(sorted(CHIP_SIZES)),
)
def test_any_geometry_gives_a_chip(points: np.ndarray, box: np.ndarray, space: str) -> None:
    box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:]) + 1])
    chip = align(Image.new("RGB", (64, 48), "grey"), DetectedFace(box, 1.0, points), space)
    assert chip.shape == (CHIP_SIZES[space],) * 2 + (3,)
    assert chip.dtype == np.uint8


def test_batches_and_unknown_spaces(photo: Image.Image, face: DetectedFace) -> None:
    for space, size in CHIP_SIZES.items():
        chips = align_batch([photo, photo], [face, face], space)
        assert chips.shape == (2, size, size, 3)
        assert np.array_equal(chips[1], align(photo, face, space))
        assert align_batch([], [], space).shape == (0, size, size, 3)
    with pytest.raises(ConfigError, match="known spaces: dlib-128"):
        align(photo, face, "arcface-512")
    with pytest.raises(ConfigError, match="2 pictures but 1 face"):
        align_batch([photo, photo], [face], "dlib-128")


def test_read_face(tmp_path: Path, photo: Image.Image, face: DetectedFace) -> None:
    photo.save(tmp_path / "a.png")
    result = read_face(tmp_path / "a.png", "dlib-128")
    assert result.size == (256, 256)
    assert np.array_equal(result.chip, align(photo, face, "dlib-128"))
    with pytest.raises(ConfigError, match="known spaces"):
        read_face(photo, "arcface-512")


def test_no_detect_takes_the_picture_for_a_face_crop(photo: Image.Image, face: DetectedFace) -> None:
    height = 1.3 * (face.box[3] - face.box[1])
    centre = (face.box[:2] + face.box[2:]) / 2
    crop = photo.crop((*(centre - height / 2).astype(int).tolist(), *(centre + height / 2).astype(int).tolist()))
    assumed, (found,) = whole_image_face(crop), detect(crop)
    assert np.abs(assumed.points - found.points).max() < 0.12 * height
    nothing = Image.new("RGB", (300, 200), (90, 120, 80))
    assert read_face(nothing, "dlib-128", no_detect=True).chip.shape == (150, 150, 3)


def test_loading_pictures_does_not_import_torch() -> None:
    assert "torch" not in vars(images)


@pytest.mark.data
def test_real_photos_and_video_frames(data_root: Path) -> None:
    import av

    for file in sorted((data_root / "london_faces" / "smiling_front").glob("*.jpg"))[:3]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert find_face(load_image(file), source=file).eye_distance > 80
    with av.open(str(data_root / "grid_clips" / "brbk7n.mpg")) as container:
        frame = next(container.decode(video=0)).to_image()
    assert quality_warnings(frame, find_face(frame)) == []
