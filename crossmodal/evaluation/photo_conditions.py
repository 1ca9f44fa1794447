"""Photo → canonical face in photos as people have them: small, compressed, badly lit, turned, with glasses.

Photos of held-out people are changed one way at a time and drawn by the journey, detection included. What the face
ought to be is known: the one drawn from the unchanged photo. Beside it stands how far apart different people's lie.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from crossmodal.data.face_model import skin_mask
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.pseudo_pairs import Axis
from crossmodal.errors import NoFaceError
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.faces import DetectedFace
from crossmodal.pictures import contact_sheet
from crossmodal.refinement import describer_of
from crossmodal.skin import from_linear, mask, srgb_to_lab, to_linear
from crossmodal.speech2face import Face, Speech2Face

Change = Callable[[Image.Image, DetectedFace, np.random.Generator], Image.Image]
"""Photo, where its face is, and a source of randomness → the photo as it might have been taken."""


# ---------------------------------------------------------------------------------------- changes


def small(edge: int) -> Change:
    """Reduced to ``edge`` pixels on the longer side."""

    def change(image: Image.Image, _face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
        scale = edge / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)

    return change


def compressed(quality: int) -> Change:
    """Through a JPEG of that quality."""

    def change(image: Image.Image, _face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def lit(stops: float, gains: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Change:
    """In another light: exposure in stops, and a factor on red, green and blue; all in linear light."""

    def change(image: Image.Image, _face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
        linear = to_linear(np.asarray(image) / 255.0) * 2.0**stops * np.array(gains)
        return _picture(from_linear(np.clip(linear, 0, 1)))

    return change


def side_lit(image: Image.Image, face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
    """Light from one side: it falls to a quarter across the face."""
    across = (np.arange(image.width) - face.points[:2, 0].mean()) / face.eye_distance
    fall = 0.25 ** np.clip(0.5 * across + 0.25, 0, 1)
    return _picture(from_linear(to_linear(np.asarray(image) / 255.0) * fall[None, :, None]))


def colourless(image: Image.Image, _face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
    """Black and white."""
    return image.convert("L").convert("RGB")


def noisy(deviation: float) -> Change:
    """With sensor noise of that deviation, of 255."""

    def change(image: Image.Image, _face: DetectedFace, rng: np.random.Generator) -> Image.Image:
        values = np.asarray(image).astype(np.float64)
        return _picture((values + deviation * rng.standard_normal(values.shape)) / 255)

    return change


def rolled(degrees: float) -> Change:
    """The head (and all else) leaning."""

    def change(image: Image.Image, _face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
        corner = tuple(int(v) for v in np.asarray(image)[:8, :8].reshape(-1, 3).mean(0))
        return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=corner)

    return change


def turned(degrees: float) -> Change:
    """The head turned aside, as if its front were a cylinder: one half narrows, the other widens."""

    def change(image: Image.Image, face: DetectedFace, _rng: np.random.Generator) -> Image.Image:
        radius, centre = 1.25 * face.eye_distance, float(face.points[:2, 0].mean())
        across = (np.arange(image.width) - centre) / radius
        angle = np.arcsin(np.clip(across, -1, 1)) - np.deg2rad(degrees)
        source = np.where(np.abs(across) < 1, np.sin(np.maximum(angle, -np.pi / 2)), across) * radius + centre
        source = np.clip(source, 0, image.width - 1)
        low = np.minimum(source.astype(int), image.width - 2)
        share = (source - low)[None, :, None]
        values = np.asarray(image) / 255.0
        return _picture((1 - share) * values[:, low] + share * values[:, low + 1])

    return change


def with_glasses(image: Image.Image, face: DetectedFace, rng: np.random.Generator) -> Image.Image:
    """Glasses drawn on: dark frames, a bridge, temples, and a reflection on each lens."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    unit = face.eye_distance
    colour = (*(int(v) for v in rng.integers(15, 70, 3)), 255)
    width = max(1, round(0.055 * unit))
    for x, y in face.points[:2]:
        box = (x - 0.36 * unit, y - 0.22 * unit, x + 0.36 * unit, y + 0.3 * unit)
        draw.rounded_rectangle(box, radius=0.14 * unit, outline=colour, width=width, fill=(200, 210, 225, 28))
        shine = [(x - 0.2 * unit, y + 0.18 * unit), (x + 0.05 * unit, y - 0.12 * unit)]
        draw.line(shine, fill=(255, 255, 255, 110), width=width)
    (left, left_y), (right, right_y) = face.points[:2]
    draw.line([(left + 0.36 * unit, left_y), (right - 0.36 * unit, right_y)], fill=colour, width=width)
    draw.line([(left - 0.36 * unit, left_y), (left - 0.75 * unit, left_y - 0.03 * unit)], fill=colour, width=width)
    draw.line([(right + 0.36 * unit, right_y), (right + 0.75 * unit, right_y - 0.03 * unit)], fill=colour, width=width)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _picture(values: np.ndarray) -> Image.Image:
    """``(H, W, 3)`` in [0, 1] → picture."""
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


CONDITIONS: Mapping[str, Change] = {
    "200 px picture": small(200),
    "100 px picture": small(100),
    "JPEG quality 20": compressed(20),
    "noise": noisy(15),
    "warm light": lit(-0.3, (1.25, 1.0, 0.65)),
    "dim": lit(-1.5),
    "light from the side": side_lit,
    "black and white": colourless,
    "leaning by 20°": rolled(20),
    "turned by 20°": turned(20),
    "glasses": with_glasses,
}
"""What is done to the photos. A smile, and a group picture, are measured with real photos beside these."""
LIGHTS = ("warm light", "dim", "light from the side", "black and white")
"""Conditions in which the colour of the skin is measured too."""


def group(image: Image.Image, others: Sequence[Image.Image]) -> Image.Image:
    """A picture of several people, ``image``'s the nearest; two ``others`` stand beside and further away."""
    smaller = [other.resize((other.width * 3 // 5, other.height * 3 // 5)) for other in others[:2]]
    width = image.width + sum(other.width for other in smaller)
    sheet = Image.new("RGB", (width, image.height), (205, 208, 212))
    sheet.paste(smaller[0], (0, image.height - smaller[0].height))
    sheet.paste(image, (smaller[0].width, 0))
    sheet.paste(smaller[-1], (width - smaller[-1].width, image.height - smaller[-1].height))
    return sheet


# ---------------------------------------------------------------------------------------- photos


def photo_paths(data: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """Neutral, then smiling, photo of each of ``names`` below ``data``, as far as they are there."""
    from crossmodal.data.sets import london_faces

    found: dict[str, dict[str, Path]] = {name: {} for name in names}
    for row in london_faces.rows(data / "london_faces"):
        if row.speaker in found and row.face is not None:
            found[row.speaker][row.attributes.get("view", "")] = row.face
    views = ("neutral_front", "smiling_front")
    return {name: [photos[view] for view in views if view in photos] for name, photos in found.items()}


# ---------------------------------------------------------------------------------------- measurement


@dataclass
class Seen:
    """One drawn face, as recognition and the eye see it."""

    image: Image.Image
    feature: np.ndarray
    """``(D,)`` of the drawn face."""
    skin: np.ndarray
    """``(3,)`` CIE L*a*b* of its skin."""


class Drawer:
    """Draw a photo by the journey and describe the result."""

    def __init__(self, journey: Speech2Face) -> None:
        self.journey = journey
        self.describer = describer_of(journey.module("face-decoder"), journey.module("face-features"))

    def __call__(self, picture: Image.Image, **options: object) -> Seen | None:
        """``None``: no face was found. Options as of :meth:`~crossmodal.speech2face.Speech2Face.reface`."""
        try:
            return self.describe(self.journey.reface(picture, **options))  # type: ignore[arg-type]
        except NoFaceError:
            return None

    @torch.no_grad()
    def describe(self, face: Face) -> Seen:
        """Feature and skin of a drawn face."""
        values = np.asarray(face.image) / 255.0
        image = torch.from_numpy(values).float().permute(2, 0, 1)[None]
        feature = self.describer(image, torch.from_numpy(face.landmarks)[None].float())[0].numpy()
        skin = values[mask(face.landmarks[:2].astype(np.float64), len(values))]
        return Seen(face.image, feature, srgb_to_lab(np.median(skin, axis=0)))


def measure_conditions(
    journey: Speech2Face,
    prepared: PreparedFaces,
    photos: Mapping[str, Sequence[Path]],
    probe: Axis,
    *,
    conditions: Mapping[str, Change] = CONDITIONS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[Figure], Image.Image]:
    """For each condition: is the face found, and how far is what is drawn from what the clean photo gives?

    Args:
        journey: draws.
        prepared: real people and their true colours.
        photos: neutral photo, then perhaps a smiling one, of each held-out person.
        probe: gender in features of real faces, positive for men.
        conditions: what is done to the photos.
        seed: of noise and frames.
        progress: told what is being done.

    Returns:
        The figures, and a sheet of one photo in all conditions above the faces drawn.
    """
    from crossmodal.faces import find_face, load_image

    draw = Drawer(journey)
    names = list(photos)
    index = prepared.indices(names)
    male = np.array([prepared.attributes[i].get("gender") == "male" for i in index])
    where = skin_mask(prepared.aligned)
    true = srgb_to_lab(np.median(prepared.aligned.textures[index][..., :3][:, where] / 255.0, axis=1))
    images = [load_image(photos[name][0]) for name in names]
    faces = [find_face(image) for image in images]
    progress("drawing the clean photos")
    clean = np.stack([draw.describe(journey.reface(image)).feature for image in images])
    apart = np.linalg.norm(clean[:, None] - clean[None], axis=-1)[~np.eye(len(clean), dtype=bool)].mean()
    pictures: dict[str, list[Image.Image]] = {
        name: [change(im, face, np.random.default_rng([seed, k])) for k, (im, face) in enumerate(zip(images, faces))]
        for name, change in conditions.items()
    }
    pictures["group picture"] = [
        group(image, [images[k - 1], images[(k + 1) % len(images)]]) for k, image in enumerate(images)
    ]
    if all(len(paths) > 1 for paths in photos.values()):
        pictures["smiling photo"] = [load_image(photos[name][1]) for name in names]
    figures: list[Figure] = []
    kept: list[float] = []
    whose: list[int] = []
    shown: dict[str, tuple[Image.Image, Image.Image]] = {}
    for name, changed in pictures.items():
        progress(f"drawing photos: {name}")
        seen = [draw(picture) for picture in changed]
        found = [k for k, one in enumerate(seen) if one is not None]
        drawn = [one for one in seen if one is not None]
        figures.append(figure(f"{name}: face found", np.isin(np.arange(len(seen)), found).astype(float)))
        if not drawn:
            continue
        shown[name] = (changed[found[0]], drawn[0].image)
        feature = np.stack([one.feature for one in drawn])
        distance = np.linalg.norm(feature - clean[found], axis=1)
        figures.append(
            figure(
                f"{name}: distance to the face from the clean photo", distance,
                reference=float(apart), reference_name="between people",
            )
        )  # fmt: skip
        kept += list(((probe.score(feature) > 0) == male[found]).astype(float))
        whose += found
        if name in LIGHTS:
            ours = np.array([np.linalg.norm(one.skin - true[k]) for k, one in zip(found, drawn)])
            theirs = [draw.describe(journey.reface(changed[k], skin="feature")).skin - true[k] for k in found]
            figures.append(
                figure(
                    f"{name}: skin colour difference ΔE*ab", ours,
                    reference=float(np.linalg.norm(theirs, axis=1).mean()), reference_name="feature alone",
                )
            )  # fmt: skip
    figures.append(
        figure(
            "all conditions: gender kept", kept, clusters=whose,
            reference=float(max(male.mean(), 1 - male.mean())), reference_name="chance",
        )
    )  # fmt: skip
    above, below = zip(*shown.values())
    return figures, contact_sheet([*above, *below], [*shown, *["drawn"] * len(shown)], columns=len(shown), tile=160)


def measure_clips(
    journey: Speech2Face, clips: Mapping[Path, bool], probe: Axis
) -> tuple[list[Figure], Image.Image | None]:
    """Faces drawn from frames of talking-face videos: the best of the first second, and the best of the third.

    Args:
        journey: draws.
        clips: video → whether it shows a man.
        probe: gender in features of real faces, positive for men.

    Returns:
        The figures, and a sheet of the frames above the faces drawn.
    """
    from crossmodal.data.video import best_frame

    if not clips:
        return [], None
    draw = Drawer(journey)
    frames = [best_frame(path, start, start + 1.0).image for path in clips for start in (0.0, 2.0)]
    drawn = [draw.describe(journey.reface(frame)) for frame in frames]
    feature = np.stack([one.feature for one in drawn])  # (2 clips, D)
    whose = np.repeat(np.arange(len(clips)), 2)
    right = ((probe.score(feature) > 0) == np.repeat(list(clips.values()), 2)).astype(float)
    between = np.linalg.norm(feature[:, None] - feature[None], axis=-1)[whose[:, None] != whose[None]]
    figures = [
        figure(
            "video frames: gender of the drawn face", right, clusters=whose, reference=0.5, reference_name="chance"
        ),
        figure(
            "video frames: distance of faces from two frames", np.linalg.norm(feature[::2] - feature[1::2], axis=-1),
            reference=float(between.mean()) if len(clips) > 1 else None, reference_name="between people",
        ),
    ]  # fmt: skip
    captions = [path.stem for path in clips for _ in range(2)] + ["drawn"] * len(drawn)
    return figures, contact_sheet([*frames, *(one.image for one in drawn)], captions, columns=len(frames), tile=160)
