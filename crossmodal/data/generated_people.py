"""People made of random numbers, prepared as the face recipes want them: for debug recipes and tests.

Shapes, textures and features are linear in a few hidden traits of which one is gender, so that there is something to
learn; nothing looks like a face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from crossmodal.data.canonical_faces import RAYS, TEMPLATE_POINTS, AlignedFaces, Frame
from crossmodal.data.face_photos import PORTRAIT, PhotoFeatures
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import CHANGES, PreparedVoices

FRAME = Frame(size=64, eye_distance=14.0, eye_line=29.0)
TRAITS = 6


def people(count: int = 16, seed: int = 0, *, frame: Frame = FRAME, feature_size: int = 128) -> PreparedFaces:
    """``count`` people, women and men in turn, with two photos each."""
    rng = np.random.default_rng(seed)
    traits = rng.standard_normal((count, TRAITS))
    male = np.arange(count) % 2 == 1
    traits[:, 0] = np.where(male, 1.0, -1.0) + 0.3 * traits[:, 0]
    size, landmarks = frame.size, TEMPLATE_POINTS + RAYS
    angle = rng.uniform(0, 2 * np.pi, landmarks)
    radius = 0.33 * size * np.sqrt(rng.uniform(0.02, 1.0, landmarks))
    mean = np.stack([frame.centre + radius * np.cos(angle), frame.eye_line + radius * np.sin(angle)], axis=-1)
    mean[[0, 1]] = [[frame.centre + s * frame.eye_distance / 2, frame.eye_line] for s in (-1, 1)]
    moves = rng.standard_normal((TRAITS, landmarks, 2)) * 0.02 * size
    points = mean + np.einsum("nt,tlc->nlc", traits, moves)
    patterns = ndimage.gaussian_filter(rng.standard_normal((TRAITS, size, size, 3)), (0, 5, 5, 0))
    patterns *= 0.08 / patterns.std()
    colour = np.clip(0.55 + np.einsum("nt,thwc->nhwc", traits, patterns), 0, 1)
    rows, columns = np.mgrid[0:size, 0:size]
    disc = np.clip((0.42 * size - np.hypot(columns - frame.centre, rows - size / 2)) / 3, 0, 1)
    rgba = np.concatenate([colour, np.broadcast_to(disc[None, ..., None], (*colour.shape[:3], 1))], axis=-1)
    textures = (255 * rgba).round().astype(np.uint8)
    mirror = np.arange(landmarks)
    aligned = AlignedFaces(
        [f"{i:03d}" for i in range(count)],
        points.astype(np.float32),
        textures,
        textures,
        mean.astype(np.float32),
        mirror,
        frame,
    )
    photos = 4  # two views, each with a mirror image
    directions = rng.standard_normal((TRAITS, feature_size)) / np.sqrt(feature_size) * 0.5
    features = np.repeat(traits @ directions, photos, axis=0)
    features = features + 0.01 * rng.standard_normal(features.shape)
    described = PhotoFeatures(
        features.astype(np.float32),
        np.repeat(np.arange(count), photos),
        np.tile([0, 0, 1, 1], count),
        np.tile([0, 1, 0, 1], count),
        np.zeros((count * photos, 5, 2), dtype=np.float32),
        np.full((count * photos, 3), np.nan, dtype=np.float32),
        np.repeat(_portraits(textures), photos, axis=0),
    )
    places = np.array([[50, 50], [100, 50], [75, 80], [55, 105], [95, 105]], dtype=np.float32)
    gender = [{"gender": "male" if m else "female", "age": str(20 + i), "ethnicity": ("white", "black")[i // 2 % 2]}
              for i, m in enumerate(male)]  # fmt: skip
    return PreparedFaces(aligned, described, places, np.ones(5, dtype=np.float32), gender)


def _portraits(pictures: np.ndarray) -> np.ndarray:
    """Pictures ``(N, H, W, 4)`` uint8 as photos show them → ``(N, S, S, 4)``, known everywhere."""
    from PIL import Image

    shown = [Image.fromarray(p[..., :3]).resize((PORTRAIT, PORTRAIT), Image.Resampling.BOX) for p in pictures]
    return np.stack([np.dstack([np.asarray(p), np.full(p.size, 255, np.uint8)]) for p in shown])


def voices(count: int = 24, seed: int = 0, *, size: int = 256) -> PreparedVoices:
    """``count`` speakers, women and men in turn, whose embeddings hold how masculine they are."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(size) / np.sqrt(size)
    rows: dict[str, list] = {name: [] for name in PreparedVoices.__dataclass_fields__}
    for speaker in range(count):
        gender = speaker % 2
        depth = (1.0 if gender else -1.0) + 0.25 * rng.standard_normal()
        own = 0.3 * rng.standard_normal(size) / np.sqrt(size)
        for change in CHANGES:
            factor = float(np.exp(rng.uniform(-0.2, 0.2))) if change == "shifted" else 1.0
            heard = depth - 6 * np.log(factor)
            vector = 0.4 * heard * direction + own + 0.05 * rng.standard_normal(size) / np.sqrt(size)
            rows["speaker"].append(f"librispeech/{speaker}")
            rows["gender"].append("male" if gender else "female")
            rows["clip"].append(f"librispeech/{speaker}/{speaker}-1")
            rows["change"].append(change)
            rows["factor"].append(factor)
            rows["pitch"].append(160 * np.exp(-0.3 * depth) * factor)
            rows["spacing"].append(1080 * np.exp(-0.06 * depth) * factor)
            rows["embedding"].append(vector / np.linalg.norm(vector))
    arrays = {name: np.array(values) for name, values in rows.items()}
    for name in ("factor", "pitch", "spacing", "embedding"):
        arrays[name] = arrays[name].astype(np.float32)
    return PreparedVoices(**arrays)


def generate(folder: Path, seed: int) -> None:
    """Write ``prepared/`` and ``voices.npz`` into ``folder`` (``generate:`` of the debug recipes)."""
    people(seed=seed).save(folder / "prepared")
    voices(seed=seed).save(folder / "voices.npz")
