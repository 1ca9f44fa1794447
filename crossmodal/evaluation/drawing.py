"""What a bundle makes of many voices at once: embeddings, face features, drawn faces, and the drawn faces read back.

:class:`Drawing` does for arrays what :class:`~crossmodal.speech2face.Speech2Face` does for one recording, and describes
every drawn face with the face-recognition network as if it were a photo: found by the detector, aligned, embedded.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.errors import BundleError
from crossmodal.speech2face import Route, resolve_route

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from crossmodal.journey import Journey

BATCH = 8


@dataclass
class Drawn:
    """``N`` drawn faces."""

    images: Mapping[int, np.ndarray]
    """Index → ``(H, W, 3)`` uint8, of those that were kept."""
    landmarks: np.ndarray
    """``(N, L, 2)`` pixels."""
    feature: np.ndarray
    """``(N, D)`` of the picture, read back as a photo's would be."""
    found: np.ndarray
    """``(N,)`` bool: the detector saw a face. Where it did not, the picture was taken for a face crop."""

    def picture(self, index: int) -> Image.Image:
        """One of them."""
        from PIL import Image

        return Image.fromarray(self.images[index])


class Drawing:
    """Voices → faces with one bundle.

    Args:
        journey: the bundle, on its device.
        route: as in :meth:`crossmodal.speech2face.Speech2Face.__call__`.

    Raises:
        BundleError: the bundle lacks a decoder or a face-recognition network.
    """

    def __init__(self, journey: Journey, route: Route = "auto") -> None:
        self.journey = journey
        self.decoder: Any = journey.module("face-decoder")
        self.network: Any = journey.module("face-features")
        self.space: str = self.network.space
        self.route = resolve_route(route, journey.bundle)

    @property
    def hypotheses(self) -> bool:
        """Whether it can draw several different faces for one voice."""
        return self.route == "embedding"

    def embed(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Speech ``(T_i,)`` at 16 kHz → ``(N, 256)`` speaker embeddings."""
        import torch

        encoder = self.journey.module("speaker-encoder")
        parts = []
        with torch.inference_mode():
            for start in range(0, len(waveforms), BATCH):
                parts.append(encoder.embed_batch(list(waveforms[start : start + BATCH])).float().cpu().numpy())
        return np.concatenate(parts)

    def features(self, waveforms: Sequence[np.ndarray], embeddings: np.ndarray | None = None) -> np.ndarray:
        """Speech ``(T_i,)`` at 16 kHz → ``(N, D)`` face features, the most likely ones.

        Args:
            waveforms: the speech.
            embeddings: of the same speech, if they are known already.
        """
        import torch

        if self.route == "embedding":
            return self.modes(self.embed(waveforms) if embeddings is None else embeddings)
        encoder = self.journey.module("voice-encoder")
        found = []
        with torch.inference_mode():
            for waveform in waveforms:
                sound = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None]
                found.append(encoder(encoder.features(sound.to(self.journey.device))).float().cpu().numpy())
        return np.concatenate(found)

    def from_spectrograms(self, spectrograms: Sequence[np.ndarray]) -> np.ndarray:
        """Prepared spectrograms ``(2, F, 257)`` → ``(N, D)`` face features by the published voice encoder.

        Raises:
            BundleError: its voice encoder does not read these spectrograms.
        """
        import torch

        encoder = self.journey.module("voice-encoder")
        if encoder.kind != "voice-encoder-conv":
            problem = f"its {encoder.kind} does not read the prepared spectrograms"
            raise BundleError(problem, source=self.journey.bundle.folder, remedy="prepare the waveform instead")
        found = []
        with torch.inference_mode():
            for spectrogram in spectrograms:
                tensor = torch.from_numpy(np.asarray(spectrogram, dtype=np.float32))[None]
                found.append(encoder(tensor.to(self.journey.device)).float().cpu().numpy())
        return np.concatenate(found)

    def modes(self, embeddings: np.ndarray) -> np.ndarray:
        """``(N, 256)`` → the most likely face feature of each, ``(N, D)``."""
        import torch

        head = self.journey.module("feature-head")
        with torch.inference_mode():
            return head.mode(self._tensor(embeddings)).float().cpu().numpy()

    def samples(self, embeddings: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
        """``(N, 256)`` → ``(N, count, D)`` plausible face features of each; the first is the most likely."""
        import torch

        head = self.journey.module("feature-head")
        found = []
        with torch.inference_mode():
            for number, row in enumerate(self._tensor(embeddings)):
                generator = torch.Generator().manual_seed(seed + number)
                found.append(head.sample(row[None], count, generator=generator)[0].float().cpu().numpy())
        return np.stack(found)

    def draw(self, features: np.ndarray, keep: Collection[int] | None = None) -> Drawn:
        """``(N, D)`` → faces, read back.

        Args:
            features: what is drawn.
            keep: which pictures are kept (thousands would fill the memory); all of them if ``None``.
        """
        import torch

        images: dict[int, np.ndarray] = {}
        landmarks, described, found = [], [], []
        for start in range(0, len(features), BATCH):
            with torch.inference_mode():
                face = self.decoder(self._tensor(features[start : start + BATCH]))
                pixels = (face.image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
                landmarks.append(face.landmarks.float().cpu().numpy())
            feature, seen = self.describe(pixels)
            described.append(feature)
            found.append(seen)
            images.update((start + i, image) for i, image in enumerate(pixels) if keep is None or start + i in keep)
        return Drawn(images, np.concatenate(landmarks), np.concatenate(described), np.concatenate(found))

    def landmarks(self, features: np.ndarray) -> np.ndarray:
        """``(N, D)`` → ``(N, L, 2)``: where the decoder places the landmarks of each."""
        import torch

        with torch.inference_mode():
            parts = [
                self.decoder(self._tensor(features[start : start + BATCH])).landmarks.float().cpu().numpy()
                for start in range(0, len(features), BATCH)
            ]
        return np.concatenate(parts)

    def describe(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures ``(N, H, W, 3)`` uint8 → features ``(N, D)``, and where the detector saw a face ``(N,)``."""
        from PIL import Image

        from crossmodal.faces import align, detect, whole_image_face

        chips, found = [], []
        for pixels in images:
            picture = Image.fromarray(pixels)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                faces = detect(picture)
            found.append(bool(faces))
            chips.append(align(picture, faces[0] if faces else whole_image_face(picture), self.space))
        return self.embed_chips(np.stack(chips)), np.array(found)

    def embed_chips(self, chips: np.ndarray) -> np.ndarray:
        """Chips ``(N, S, S, 3)`` uint8 → ``(N, D)``."""
        parts = [
            self.network.embed(chips[start : start + 4 * BATCH]).float().cpu().numpy()
            for start in range(0, len(chips), 4 * BATCH)
        ]
        return np.concatenate(parts)

    def classify(self, features: np.ndarray) -> np.ndarray | None:
        """``(N, D)`` → identity logits ``(N, C)`` of the face network's classifier; ``None`` if it has none."""
        import torch

        if not hasattr(self.network, "classify"):
            return None
        with torch.inference_mode():
            return self.network.classify(self._tensor(features)).float().cpu().numpy()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.journey.device)
