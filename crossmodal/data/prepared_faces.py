"""What the face decoder's training reads: aligned people and features of their photos, prepared once into a folder.

::

    python -m crossmodal.data.prepared_faces DATA_FOLDER OUT_FOLDER

``faces.npz`` holds :class:`~crossmodal.data.canonical_faces.AlignedFaces`, ``photos.npz``
:class:`~crossmodal.data.face_photos.PhotoFeatures` and where the recognition network's chip lies on a face.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.canonical_faces import AlignedFaces, Frame, align_faces, read_template
from crossmodal.data.face_photos import PhotoFeatures, describe_photos
from crossmodal.errors import DataError
from crossmodal.files import atomic_path
from crossmodal.losses.decoder import CORNERS

_FACES, _PHOTOS = "faces.npz", "photos.npz"


@dataclass
class PreparedFaces:
    """Everything known of a set of people."""

    aligned: AlignedFaces
    photos: PhotoFeatures
    chip_places: np.ndarray
    """``(5, 2)`` mean place of :data:`CORNERS` in the recognition network's chip."""
    chip_weights: np.ndarray
    """``(5,)`` their weights in the fit."""
    attributes: list[dict[str, str]]
    """Of each person: ``gender``, ``age``, ``ethnicity``, as far as known."""

    def indices(self, names: Sequence[str]) -> list[int]:
        """Indices of people.

        Raises:
            DataError: one of them is not there.
        """
        place = {name: i for i, name in enumerate(self.aligned.names)}
        missing = [name for name in names if name not in place]
        if missing:
            raise DataError(f"no person called '{missing[0]}'", source="held_out", remedy="name people of the data set")
        return [place[name] for name in names]

    def rows(self, view: int, copy: int = 0) -> np.ndarray:
        """``(N,)`` row of :attr:`photos` of one photo of each person; -1 where there is none."""
        found = np.full(len(self.aligned.names), -1)
        chosen = np.flatnonzero((self.photos.view == view) & (self.photos.copy == copy))
        found[self.photos.person[chosen]] = chosen
        return found

    def feature(self, view: int, copy: int = 0) -> np.ndarray:
        """``(N, D)`` features of one photo of each person; NaN where there is none."""
        rows = self.rows(view, copy)
        return np.where(rows[:, None] >= 0, self.photos.features[rows], np.float32(np.nan))

    def save(self, folder: Path) -> None:
        """Write both files."""
        folder.mkdir(parents=True, exist_ok=True)
        a, p = self.aligned, self.photos
        keys = sorted({key for row in self.attributes for key in row})
        arrays: dict[str, Any] = {"chip_places": self.chip_places, "chip_weights": self.chip_weights, **asdict(p)}
        for key in keys:
            arrays[f"attribute_{key}"] = np.array([row.get(key, "") for row in self.attributes])
        with atomic_path(folder / _PHOTOS) as path, open(path, "wb") as file:
            np.savez(file, **arrays)
        with atomic_path(folder / _FACES) as path, open(path, "wb") as file:
            np.savez(
                file,
                names=np.array(a.names),
                points=a.points,
                textures=a.textures,
                pictures=a.pictures,
                mean_points=a.mean_points,
                mirror=a.mirror,
                frame=np.array([a.frame.size, a.frame.eye_distance, a.frame.eye_line]),
            )

    @classmethod
    def load(cls, folder: Path) -> PreparedFaces:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the folder holds no prepared faces.
        """
        try:
            with np.load(folder / _FACES, allow_pickle=False) as f, np.load(folder / _PHOTOS, allow_pickle=False) as p:
                size, distance, line = f["frame"].tolist()
                aligned = AlignedFaces(
                    [str(n) for n in f["names"]],
                    f["points"],
                    f["textures"],
                    f["pictures"],
                    f["mean_points"],
                    f["mirror"],
                    Frame(int(size), distance, line),
                )
                photos = PhotoFeatures(*(p[field.name] for field in fields(PhotoFeatures)))
                attributes: list[dict[str, str]] = [{} for _ in aligned.names]
                for key in p.files:
                    if key.startswith("attribute_"):
                        for row, value in zip(attributes, p[key]):
                            row[key.removeprefix("attribute_")] = str(value)
                return cls(aligned, photos, p["chip_places"], p["chip_weights"], attributes)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                "holds no prepared faces",
                source=folder,
                remedy=f"run: python -m crossmodal.data.prepared_faces DATA_FOLDER {folder}",
            ) from error


def prepare_london(
    data: Path, frame: Frame, *, copies: int = 8, seed: int = 0, say: Callable[[str], None] | None = None
) -> PreparedFaces:
    """Prepare the Face Research Lab London Set below ``data``: neutral photos with templates, and smiling ones.

    Raises:
        DataError: no photos with templates.
    """
    import torch

    from crossmodal.data.sets import london_faces
    from crossmodal.models.face_features import DlibFaceFeatures

    root = data / "london_faces"
    rows = list(london_faces.rows(root))
    neutral = sorted((r for r in rows if r.attributes.get("template")), key=lambda r: r.speaker)
    if not neutral:
        raise DataError("holds no photos with landmark templates", source=root)
    place = {row.speaker: i for i, row in enumerate(neutral)}
    templates = [root / row.attributes["template"] for row in neutral]
    paths = [row.face for row in neutral if row.face is not None]
    aligned = align_faces(
        [(row.speaker, path, template) for row, path, template in zip(neutral, paths, templates)],
        frame,
        progress=_every(10, "aligned", say),
    )
    photos = [(i, 0, path) for i, path in enumerate(paths)]
    photos += [
        (place[r.speaker], 1, r.face)
        for r in rows
        if r.attributes.get("view") == "smiling_front" and r.speaker in place and r.face is not None
    ]
    network = DlibFaceFeatures.from_package()
    described = describe_photos(
        photos, lambda chips: network.embed(torch.from_numpy(chips)).numpy(), frame, copies=copies, seed=seed,
        progress=_every(20, "described", say),
    )  # fmt: skip
    places, weights = _chip_places(described, templates)
    known = [{k: v for k, v in row.attributes.items() if k in ("gender", "age", "ethnicity")} for row in neutral]
    return PreparedFaces(aligned, described, places, weights, known)


def _chip_places(photos: PhotoFeatures, templates: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Where :data:`CORNERS` lie in the chips that the detector's points cut: ``(5, 2)``, and the weights ``(5,)``."""
    from crossmodal.faces import DLIB_POINTS, DLIB_WEIGHTS, similarity_fit

    found = []
    for row in np.flatnonzero((photos.view == 0) & (photos.copy == 0)):
        matrix, shift = similarity_fit(photos.points[row].astype(np.float64), DLIB_POINTS, DLIB_WEIGHTS)
        landmarks = read_template(templates[photos.person[row]])[list(CORNERS)]
        found.append(landmarks @ matrix.T + shift)
    return np.mean(found, axis=0).astype(np.float32), DLIB_WEIGHTS.astype(np.float32)


def _every(step: int, what: str, say: Callable[[str], None] | None) -> Callable[[int, int], None] | None:
    return None if say is None else lambda done, of: say(f"{what} {done}/{of}") if done % step == 0 else None


def load_or_prepare(folder: Path, data: Path | None, frame: Frame) -> PreparedFaces:
    """What is in ``folder``, or prepare it there from the data folder.

    Raises:
        DataError: neither is possible.
    """
    if (folder / _FACES).is_file() or data is None:
        prepared = PreparedFaces.load(folder)
        if prepared.aligned.frame != frame:
            raise DataError("was prepared for another frame", source=folder, remedy="delete it to prepare it again")
        return prepared
    import logging

    prepared = prepare_london(data, frame, say=logging.getLogger(__name__).info)
    prepared.save(folder)
    return prepared


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds london_faces")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    prepare_london(arguments.data, Frame(), say=print).save(arguments.out)


if __name__ == "__main__":
    main()
