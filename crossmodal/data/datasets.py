"""Prepared data as a map-style dataset: one example a row, with the features asked for.

>>> data = FeatureDataset.open("prepared/vox", ("spectrogram", "dlib-128"), split="train")   # doctest: +SKIP
>>> data[0]["spectrogram"].shape                                                          # doctest: +SKIP
torch.Size([2, 598, 257])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossmodal.data import splits
from crossmodal.data.features import FeatureStore, feature
from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.samplers import group_of
from crossmodal.errors import DataError


class FeatureDataset(Dataset[dict[str, Any]]):
    """Rows of one split that have every feature asked for.

    An example is a dict with ``id``, ``speaker`` (the identity), ``label`` (the identity's number, sorted) and one
    tensor a feature: int16 sound as float in [-1, 1], uint8 pictures as float ``(3, S, S)`` in [0, 1], float16 as
    float32.

    Args:
        manifest: the rows.
        features: feature → the folder it is kept in.
        split: ``train``, ``validation``, ``test``, or ``None`` for all rows.
        crop: feature → length along its first axis; a random stretch of that length, shorter values repeated. The place
            comes from torch's random numbers, which the training loop seeds for every (seed, epoch, index).
        raw: leave types and axes as they are stored.

    Raises:
        DataError: no such split, or no row has all the features.
    """

    def __init__(
        self,
        manifest: Manifest,
        features: Mapping[str, str | Path],
        split: str | None = None,
        *,
        crop: Mapping[str, int] | None = None,
        raw: bool = False,
    ) -> None:
        self.split, self.raw, self.crop = split, raw, dict(crop or {})
        self.stores = {name: FeatureStore(folder) for name, folder in features.items()}
        chosen = manifest if split is None else splits.part(manifest, split)
        self.manifest = chosen.select(lambda row: all(row.id in store for store in self.stores.values()))
        if not len(self.manifest):
            names = ", ".join(features)
            raise DataError(
                f"none of {len(chosen)} rows has {names}", source=split or "manifest", remedy="prepare them"
            )
        self.missing = len(chosen) - len(self.manifest)
        """Rows of the split that were left out because a feature is missing."""
        self.speakers = [row.identity for row in self.manifest]
        self._labels = {speaker: number for number, speaker in enumerate(sorted(set(self.speakers)))}

    @classmethod
    def open(
        cls, folder: str | Path, features: Sequence[str], split: str | None = None, **options: Any
    ) -> FeatureDataset:
        """What ``crossmodal prepare -o folder`` wrote.

        Raises:
            ConfigError: an unknown feature.
            DataError: nothing prepared there.
        """
        folder = Path(folder)
        places = {feature(name).name: folder / "features" / name for name in features}
        return cls(Manifest.read(folder / "manifest.parquet"), places, split, **options)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.manifest[index]
        example: dict[str, Any] = {"id": row.id, "speaker": row.identity, "label": self._labels[row.identity]}
        for name, store in self.stores.items():
            value = store[row.id]
            if name in self.crop:
                value = random_crop(value, self.crop[name])
            example[name] = torch.from_numpy(np.array(value)) if self.raw else ready(value)
        return example

    def row(self, index: int) -> Row:
        """The manifest row of an example."""
        return self.manifest[index]

    def groups(self, attribute: str) -> list[str | None]:
        """The group of every example, for the balanced samplers (see :func:`crossmodal.data.samplers.group_of`)."""
        return [group_of(row, attribute) for row in self.manifest]

    def protocol(self) -> dict[str, Any]:
        """What a checkpoint trained on it keeps (:func:`crossmodal.data.splits.protocol_record`); empty if unsplit."""
        return splits.protocol_record(self.manifest) if "split" in self.manifest[0].attributes else {}

    def centroids(self, name: str = "ge2e-256") -> Tensor:
        """``(K, D)`` unit-length mean of a feature over **all** rows of each label, in the order of ``label``: the
        fixed centroids of SGE2E (Goto et al. 2020, section 2.2).

        Raises:
            DataError: the feature is not part of the dataset.
        """
        if name not in self.stores:
            raise DataError(f"has no feature '{name}'", source="dataset", remedy=f"it has {', '.join(self.stores)}")
        return centroids(self.stores[name], self.manifest, self._labels)


def centroids(store: FeatureStore, manifest: Manifest, labels: Mapping[str, int], *, normalise: bool = True) -> Tensor:
    """Mean of a feature over all rows of each identity in ``labels`` → ``(len(labels), D)``, of unit length unless
    ``normalise`` is off (for spaces where the length means something).

    Raises:
        DataError: an identity has no value.
    """
    sums: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    for row in manifest:
        if row.identity in labels and row.id in store:
            value = store[row.id].astype(np.float64)
            sums[row.identity] = sums[row.identity] + value if row.identity in sums else value
            counts[row.identity] += 1
    missing = sorted(set(labels) - set(sums))
    if missing:
        raise DataError(
            f"{len(missing)} identities have no value", source=missing[0], remedy="prepare their sound first"
        )
    ordered = sorted(labels, key=labels.__getitem__)
    means = torch.from_numpy(np.stack([sums[name] / counts[name] for name in ordered]))  # (K, D)
    return (torch.nn.functional.normalize(means, dim=1) if normalise else means).float()


def random_crop(value: np.ndarray, length: int) -> np.ndarray:
    """``(T, ...)`` → ``(length, ...)``: a stretch where torch's random numbers say; a shorter value is repeated."""
    if len(value) < length:
        value = np.concatenate([value] * -(-length // max(len(value), 1)))
        return value[:length]
    start = int(torch.randint(len(value) - length + 1, ()))
    return value[start : start + length]


def ready(value: np.ndarray) -> Tensor:
    """A stored value as a network takes it: int16 → float in [-1, 1], uint8 ``(S, S, 3)`` → float ``(3, S, S)`` in
    [0, 1], float16 → float32."""
    tensor = torch.from_numpy(np.array(value))
    if tensor.dtype == torch.int16:
        return tensor.float() / 32768.0
    if tensor.dtype == torch.uint8:
        return tensor.permute(2, 0, 1).float() / 255.0
    return tensor.float()
