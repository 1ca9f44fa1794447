"""How good the drawn faces are: photo → canonical face on held-out people, voice → face on held-out speakers.

Each figure comes with n, a chance level or the mean face's figure on the same people, and a bootstrap interval over
people. The recognition network judges what it helped to make, so beside its distances stand figures it has no part in:
landmarks and aligned texture against the person's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.data.canonical_faces import INNER
from crossmodal.data.face_model import regions, skin_mask
from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.pseudo_pairs import Axis, gender_axis
from crossmodal.evaluation.face_looks import Drawn, look_figures
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.report import Report, describe
from crossmodal.models.face_decoder import FaceDecoder
from crossmodal.portrait import relit
from crossmodal.refinement import describer_of, refine
from crossmodal.skin import likely, srgb_to_lab

if TYPE_CHECKING:
    from crossmodal.speech2face import Route, Source

HELD_OUT = ("008", "014", "016", "033", "034", "039", "061", "066", "067", "087",
            "090", "096", "104", "105", "108", "112", "119", "126", "129", "141")  # fmt: skip
"""The London people that no part of the starter was trained on (``recipes/starter/face_decoder.yaml``)."""
NOTES = (
    "The recognition network helped to train the decoder: its distance and its search flatter. Landmarks, texture, "
    "looks, hair and skin colour are independent of it.",
    "Voice and face are never of the same person here: what is measured is whether a face fits what the voice tells.",
)


# ---------------------------------------------------------------------------------------- photo → face


@dataclass
class PhotoResult:
    """What the decoder made of one photo of each of ``N`` people."""

    people: list[str]
    feature: np.ndarray
    """``(N, D)`` of the photo."""
    drawn: np.ndarray
    """``(N, D)`` of the drawn face, found and described like any photo."""
    landmarks: np.ndarray
    """``(N, L, 2)``"""
    texture: np.ndarray
    """``(N, H, W, 3)`` in the mean shape, [0, 1]."""
    images: np.ndarray
    """``(N, H, W, 3)`` uint8."""


def describe_drawn(images: np.ndarray, describe: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Drawn faces ``(N, H, W, 3)`` uint8 → features ``(N, D)``, by detector and aligner, as a photo would be."""
    from PIL import Image

    from crossmodal.faces import align, find_face

    chips = []
    for image in images:
        picture = Image.fromarray(image)
        chips.append(align(picture, find_face(picture, source="drawn face"), "dlib-128"))
    return describe(np.stack(chips))


@dataclass
class Shown:
    """What photos of ``N`` people show beside their features."""

    skin: np.ndarray
    """``(N, 3)`` colour of the skin as measured, sRGB; NaN where it cannot be."""
    portraits: np.ndarray
    """``(N, S, S, 4)`` uint8, see :func:`crossmodal.faces.portrait`."""


def decode(
    decoder: FaceDecoder,
    feature: np.ndarray,
    shown: Shown | None = None,
    *,
    styles: Tensor | None = None,
    network: nn.Module | None = None,
    steps: int = 0,
    batch: int = 8,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features ``(N, D)`` → landmarks ``(N, L, 2)``, textures ``(N, H, W, 3)``, images uint8 ``(N, H, W, 3)``.

    Args:
        decoder: draws.
        feature: of the photos.
        shown: by the photos; the faces get the likely colour, and the looks. ``None``: the feature alone.
        styles: ``(N,)`` of hair, without refinement; ``None``: the likeliest.
        network: face features, for the refinement.
        steps: of refinement.
        batch: faces at a time.
    """
    inputs = torch.from_numpy(feature).float()
    with torch.no_grad():
        colour = decoder.skin(inputs)
    portraits: Tensor | None = None
    if shown is not None:
        known = np.isfinite(shown.skin).all(1)
        colour[known] = torch.from_numpy(likely(colour.numpy()[known], shown.skin[known])).float()
        portraits = _relit(decoder, shown, colour.numpy())
    describer = None if network is None else describer_of(decoder, network)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(feature), batch):
        some = slice(start, start + batch)
        looks = None if portraits is None else portraits[some]
        with torch.no_grad():
            if describer is None:
                face = decoder(inputs[some], colour[some], looks, None if styles is None else styles[some])
            else:
                face = refine(decoder, describer, inputs[some], colour[some], looks, steps=steps)
        image = (face.image * 255).round().byte().permute(0, 2, 3, 1)
        parts.append((face.landmarks, face.texture.permute(0, 2, 3, 1), image))
    landmarks, texture, images = (torch.cat(p).numpy() for p in zip(*parts))
    return landmarks, texture, images


def _relit(decoder: FaceDecoder, shown: Shown, skin: np.ndarray) -> Tensor | None:
    """Portraits ``(N, 3, S, S)`` in the light that makes the skin ``skin`` ``(N, 3)``, if the decoder takes looks."""
    if decoder.appearance is None:
        return None
    pupils = decoder.portrait_pupils()
    relit_all = [relit(p, pupils, wanted, found) for p, wanted, found in zip(shown.portraits, skin, shown.skin)]
    return torch.from_numpy(np.stack(relit_all)).permute(0, 3, 1, 2)


def measure_photos(
    decoder: FaceDecoder,
    prepared: PreparedFaces,
    held_out: Sequence[str],
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    view: int = 0,
    shown: bool = False,
    network: nn.Module | None = None,
    steps: int = 0,
) -> tuple[list[Figure], PhotoResult]:
    """Photo → canonical face on people the decoder has not seen.

    Args:
        decoder: to measure.
        prepared: all people, held out and not.
        held_out: names.
        describe: chips uint8 → features.
        view: 0 neutral photo, 1 smiling (the truth stays the neutral face).
        shown: take skin colour and looks from the photo, as the journey does; else from the feature.
        network, steps: of the refinement, see :func:`decode`.
    """
    aligned = prepared.aligned
    held = prepared.indices(held_out)
    train = [i for i in range(len(aligned.names)) if i not in set(held)]
    feature = prepared.feature(view)
    held = [i for i in held if np.isfinite(feature[i]).all()]
    wanted = feature[held]
    photos, rows = prepared.photos, prepared.rows(view)[held]
    cues = Shown(photos.skin[rows], photos.portraits[rows]) if shown else None
    landmarks, texture, images = decode(decoder, wanted, cues, network=network, steps=steps)
    drawn = describe_drawn(images, describe)
    result = PhotoResult([aligned.names[i] for i in held], wanted, drawn, landmarks, texture, images)
    label = "neutral" if view == 0 else "smiling"
    mean_feature = prepared.feature(0)[train].mean(0, keepdims=True)
    mean_landmarks, mean_texture, mean_image = decode(decoder, mean_feature)
    mean_drawn = describe_drawn(mean_image, describe)

    figures = []
    distance = np.linalg.norm(wanted - drawn, axis=1)
    mean_distance = float(np.linalg.norm(wanted - mean_drawn, axis=1).mean())
    figures.append(figure(f"{label}: feature distance, photo to drawn", distance, reference=mean_distance))
    if steps:
        plain = describe_drawn(decode(decoder, wanted, cues)[2], describe)
        figures.append(
            figure(f"{label}: the same, not refined", np.linalg.norm(wanted - plain, axis=1), reference=mean_distance)
        )
    gallery = prepared.feature(0)  # everyone's neutral photo
    nearest = np.linalg.norm(gallery[None] - drawn[:, None], axis=2).argmin(1)
    hits = (nearest == np.array(held)).astype(float)
    figures.append(
        figure(
            f"{label}: drawn face finds its person of {len(gallery)}", hits,
            reference=1 / len(gallery), reference_name="chance",
        )
    )  # fmt: skip

    male = np.array([row.get("gender") == "male" for row in prepared.attributes])
    probe = gender_probe(prepared, train)
    kept = ((probe.score(drawn) > 0) == male[held]).astype(float)
    majority = max(male[held].mean(), 1 - male[held].mean())
    figures.append(
        figure(f"{label}: gender kept (probe of real faces)", kept, reference=majority, reference_name="chance")
    )

    # Against the person's own landmarks and texture, in which recognition has no part.
    true_points, eyes = aligned.points[held][:, list(INNER)], aligned.frame.eye_distance
    error = _landmark_error(landmarks[:, list(INNER)], true_points, eyes)
    mean_error = _landmark_error(np.repeat(mean_landmarks, len(held), 0)[:, list(INNER)], true_points, eyes)
    figures.append(
        figure(f"{label}: landmark RMS error", error, reference=float(mean_error.mean()), unit="% of eye distance")
    )
    weight, _ = regions(aligned)
    inside = weight > 0.9
    truth = aligned.textures[held][..., :3].astype(np.float32)[:, inside] / 255  # (N, P, 3)
    average = aligned.textures[train][..., :3].astype(np.float32)[:, inside].mean(0) / 255
    ours, theirs = texture[:, inside], np.repeat(mean_texture[:, inside], len(held), 0)
    correlation = _correlation(ours, truth)
    figures.append(
        figure(
            f"{label}: texture correlation with the true face",
            correlation,
            reference=float(_correlation(theirs, truth).mean()),
        )
    )
    own = _correlation(ours - average, truth - average)
    figures.append(
        figure(f"{label}: the same, of what differs from the mean face", own, reference=0.0, reference_name="chance")
    )
    ranks = _rank(landmarks[:, list(INNER)], ours - average, true_points, truth - average, eyes)
    figures.append(
        figure(
            f"{label}: landmarks + texture find the person of {len(held)}", (ranks == 0).astype(float),
            reference=1 / len(held), reference_name="chance",
        )
    )  # fmt: skip

    mask = skin_mask(aligned)
    lab_true = srgb_to_lab(np.median(aligned.textures[held][..., :3][:, mask] / 255.0, axis=1))
    lab_ours = srgb_to_lab(np.median(texture[:, mask], axis=1))
    lab_mean = srgb_to_lab(np.median(mean_texture[:, mask], axis=1))
    delta = np.linalg.norm(lab_ours - lab_true, axis=1)
    mean_delta = float(np.linalg.norm(lab_mean - lab_true, axis=1).mean())
    figures.append(figure(f"{label}: skin colour difference ΔE*ab", delta, reference=mean_delta))
    texture_alone, images_alone = texture, images
    if shown:
        _, texture_alone, images_alone = decode(decoder, wanted)
        alone = srgb_to_lab(np.median(texture_alone[:, mask], axis=1))
        delta = np.linalg.norm(alone - lab_true, axis=1)
        figures.append(figure(f"{label}: the same, from the feature alone", delta, reference=mean_delta))
    lightness = lab_ours[:, 0] - lab_true[:, 0]
    mean_lightness = float((lab_mean[:, 0] - lab_true[:, 0]).mean())
    figures.append(figure(f"{label}: skin lightness, drawn − true, ΔL*", lightness, reference=mean_lightness))
    fair = lab_true[:, 0] > np.median(lab_true[:, 0])
    figures.append(
        figure(
            f"{label}: the same, fairer half", lightness[fair],
            reference=float((lab_mean[:, 0] - lab_true[fair, 0]).mean()),
        )
    )  # fmt: skip
    figures += look_figures(label, Drawn(texture, images), Drawn(texture_alone, images_alone), aligned, held)
    figures += _ages(prepared, train, held, drawn, wanted, label)
    return figures, result


def gender_probe(prepared: PreparedFaces, people: Sequence[int]) -> Axis:
    """Discriminant of gender on features of real photos of ``people``, never on a drawn face."""
    rows = np.isin(prepared.photos.person, list(people))
    male = np.array([row.get("gender") == "male" for row in prepared.attributes])
    return gender_axis(prepared.photos.features[rows].astype(np.float64), male[prepared.photos.person[rows]])


def _ages(
    prepared: PreparedFaces, train: Sequence[int], held: Sequence[int], drawn: np.ndarray, photo: np.ndarray, label: str
) -> list[Figure]:
    """Correlation of the age that a ridge probe of real faces reads in the drawn face with the true age."""
    ages = np.array([number(row.get("age", "")) for row in prepared.attributes])
    known = np.isfinite(ages)
    rows = np.isin(prepared.photos.person, [i for i in train if known[i]])
    x, y = prepared.photos.features[rows].astype(np.float64), ages[prepared.photos.person[rows]]
    mean_x, mean_y = x.mean(0), y.mean()
    weight = np.linalg.solve(
        (x - mean_x).T @ (x - mean_x) + 0.01 * len(x) * np.eye(x.shape[1]), (x - mean_x).T @ (y - mean_y)
    )
    inside = known[list(held)]
    true = ages[list(held)][inside]

    def read(features: np.ndarray) -> np.ndarray:
        return np.stack([(features[inside] - mean_x) @ weight + mean_y, true], axis=1)

    def correlation(rows: np.ndarray) -> float:
        return float(_correlation(rows[None, :, 0], rows[None, :, 1])[0])

    return [
        figure(
            f"{label}: age read in the drawn face, r with the true age", read(drawn), statistic=correlation,
            reference=correlation(read(photo)), reference_name="read in the photo itself",
        )
    ]  # fmt: skip


def number(text: str) -> float:
    """An age as a data set gives it; NaN where it gives none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _landmark_error(ours: np.ndarray, true: np.ndarray, eyes: float) -> np.ndarray:
    """RMS distance of points ``(N, P, 2)`` after a similarity alignment, in per cent of the eye distance ``(N,)``."""
    from crossmodal.data.canonical_faces import similarity, transform

    moved = np.stack([transform(similarity(a.astype(np.float64), b.astype(np.float64)), a) for a, b in zip(ours, true)])
    return 100 * np.sqrt(((moved - true) ** 2).sum(-1).mean(-1)) / eyes


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row of ``(N, ...)``."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1) + 1e-12)


def _rank(
    points: np.ndarray, texture: np.ndarray, true_points: np.ndarray, true_texture: np.ndarray, eyes: float
) -> np.ndarray:
    """Place ``(N,)`` of the right person, 0 first, by the sum of standardised landmark and texture similarity."""
    count = len(points)
    shape = np.stack([-_landmark_error(np.repeat(p[None], count, 0), true_points, eyes) for p in points])
    look = np.stack([_correlation(np.repeat(t[None], count, 0), true_texture) for t in texture])

    def standard(scores: np.ndarray) -> np.ndarray:
        scores = scores - scores.mean(0, keepdims=True)  # some people are near everyone
        return (scores - scores.mean()) / max(float(scores.std()), 1e-9)

    scores = standard(shape) + standard(look)
    return (scores > np.diag(scores)[:, None]).sum(1)


def evaluate(
    bundle: str | Path | None,
    data: Path,
    prepared: Path,
    *,
    only: str = "",
    speakers: int = 0,
    route: Route = "auto",
    source: Source = "photo",
    held_out: Sequence[str] = HELD_OUT,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure a bundle: photos of held-out people, and voices of held-out speakers.

    Args:
        bundle: see :meth:`crossmodal.bundle.Bundle.open`.
        data: the development data.
        prepared: folder of prepared faces, filled if it is empty.
        only: ``photos``, ``conditions`` (changed photos, video frames) or ``voices``; empty for all.
        speakers: most speakers of each corpus; 0 for all.
        route: of the voices, see :class:`~crossmodal.speech2face.Speech2Face`.
        source: ``photo``: photos are drawn as ``reface`` draws them; ``feature``: from the face feature alone, without
            the photo's skin colour and looks, not refined. Changed photos are always drawn as ``reface`` does.
        held_out: people the decoder was not trained on.
        progress: told what is being done.

    Raises:
        BundleError: the bundle lacks a network. DataError: the data are not there.
    """
    from crossmodal.data.canonical_faces import Frame
    from crossmodal.data.prepared_faces import load_or_prepare
    from crossmodal.evaluation.face_pictures import photo_sheet
    from crossmodal.evaluation.photo_conditions import measure_clips, measure_conditions, photo_paths
    from crossmodal.evaluation.voice_faces import GRID, evaluate_voices
    from crossmodal.speech2face import REFINE, Speech2Face

    journey = Speech2Face.from_pretrained(bundle, device="cpu")
    decoder, network = journey.module("face-decoder"), journey.module("face-features")
    progress("reading the faces")
    people = load_or_prepare(prepared, data, Frame())
    held = set(people.indices(held_out))
    probe = gender_probe(people, [i for i in range(len(people.aligned.names)) if i not in held])

    def chips_to_features(chips: np.ndarray) -> np.ndarray:
        return network.embed(chips).numpy()

    report = Report("Faces", bundle=describe(journey.bundle), seed=0, notes=list(NOTES))
    if only in ("", "photos"):
        for view, label in enumerate(("neutral", "smiling")):
            progress(f"drawing faces from {label} photos")
            whole = source == "photo"
            figures, result = measure_photos(
                decoder, people, held_out, chips_to_features, view=view, shown=whole, network=network,
                steps=REFINE if whole else 0,
            )  # fmt: skip
            report.figures += figures
            report.pictures[f"{label} photos of held-out people, and below them the faces drawn"] = photo_sheet(
                data, result, view=view
            )
    if only in ("", "conditions"):
        figures, sheet = measure_conditions(journey, people, photo_paths(data, held_out), probe, progress=progress)
        report.figures += figures
        report.pictures["one photo as it might have been taken, and below it the faces drawn"] = sheet
        progress("drawing faces from videos")
        clips = {p: GRID[p.stem] for p in sorted((data / "grid_clips").glob("*")) if p.stem in GRID}
        figures, pictures = measure_clips(journey, clips, probe)
        report.figures += figures
        if pictures is not None:
            report.pictures["frames of videos, and below them the faces drawn"] = pictures
    if only in ("", "voices"):
        progress("drawing faces for voices")
        figures, sheet = evaluate_voices(journey, data, people, probe, chips_to_features, route=route, limit=speakers)
        report.figures += figures
        report.pictures["faces drawn for held-out voices, a row a voice"] = sheet
    return report
