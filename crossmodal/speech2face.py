"""Speech → face: a voice goes in, one or several plausible faces come out (Oh et al., "Speech2Face", CVPR 2019).

The face is what the voice makes likely, not who is speaking: nobody can be identified from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from crossmodal.errors import BundleError, ConfigError
from crossmodal.journey import Journey, read_stdin

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from crossmodal.bundle import Bundle
    from crossmodal.faces import FaceChip
    from crossmodal.models.face_decoder import DecodedFace

Route = Literal["auto", "embedding", "spectrogram"]
Source = Literal["photo", "feature"]
REFINE = 5
"""Default steps of :meth:`Speech2Face.reface`'s refinement (cross-validated over people)."""


def resolve_route(route: Route, bundle: Bundle) -> Route:
    """``auto`` → what the bundle has, the embedding first; any other route as it is."""
    if route != "auto":
        return route
    return "embedding" if "feature-head" in bundle else "spectrogram"


@dataclass
class Face:
    """A generated face."""

    image: Image.Image
    """RGB picture: frontal, neutral, evenly lit."""
    landmarks: np.ndarray
    """``(L, 2)`` points in pixels of :attr:`image`."""
    feature: torch.Tensor
    """``(D,)`` face feature it was drawn from."""
    embedding: torch.Tensor | None = None
    """``(256,)`` speaker embedding of the voice; ``None`` for a photo."""
    details: dict[str, Any] = field(default_factory=dict)
    """What made it; written into the file."""

    def save(self, path: str | Path) -> Path:
        """Write the picture (PNG, JPEG or WebP by suffix), marked as generated; whole or not at all."""
        from crossmodal.provenance import save_image

        save_image(path, self.image, self.details)
        return Path(path)


class Speech2Face(Journey):
    """Draw a face for a voice.

    >>> s2f = Speech2Face.from_pretrained()                   # doctest: +SKIP
    >>> s2f("voice.wav").save("face.png")                     # doctest: +SKIP
    >>> four = s2f("voice.wav", n=4, seed=1)                  # doctest: +SKIP
    """

    @overload
    def __call__(self, voice: Any, *, seed: int = ..., route: Route = ..., sample_rate: int | None = ...) -> Face: ...
    @overload
    def __call__(
        self, voice: Any, *, n: int, seed: int = ..., route: Route = ..., sample_rate: int | None = ...
    ) -> list[Face]: ...
    def __call__(
        self,
        voice: Any,
        *,
        n: int | None = None,
        seed: int = 0,
        route: Route = "auto",
        sample_rate: int | None = None,
    ) -> Face | list[Face]:
        """Voice → the most likely face, or ``n`` different plausible ones.

        Args:
            voice: any file with sound, ``-``, or an array ``(T,)`` with its ``sample_rate``.
            n: how many hypotheses; ``None`` gives one :class:`Face`, a number a list. The first is the most likely.
            seed: chooses the further hypotheses; the same seed gives the same faces.
            route: ``embedding`` (speaker embedding → feature head), ``spectrogram`` (the published voice encoder), or
                ``auto`` (what the bundle has, the embedding first). Only ``embedding`` draws several hypotheses.

        Raises:
            AudioError: the sound cannot be read or holds too little speech.
            BundleError: the bundle lacks a network that the route needs.
        """
        import torch

        from crossmodal import audio

        if n is not None and not 1 <= n <= 64:
            raise ConfigError(f"{n} hypotheses asked for", source="n", remedy="ask for 1 to 64")
        route = resolve_route(route, self.bundle)
        waveform = audio.load_speech(read_stdin(voice), sample_rate=sample_rate)
        styles: torch.Tensor | None = None
        with torch.inference_mode():
            embedding = self.module("speaker-encoder").embed(waveform).float().to(self.device)
            if route == "embedding":
                head, decoder = self.module("feature-head"), self.module("face-decoder")
                features = head.mode(embedding[None])  # (1, D)
                if n is not None and n > 1:
                    generator = torch.Generator().manual_seed(seed)
                    features = head.sample(embedding[None], n, generator=generator)[0]  # (n, D)
                    styles = decoder.draw_styles(features, generator)
            else:
                if n is not None and n > 1:
                    raise BundleError("the spectrogram route draws one face only", remedy="use the embedding route")
                encoder = self.module("voice-encoder")
                features = encoder(encoder.features(torch.from_numpy(waveform)[None].to(self.device)))  # (1, D)
        details = {"journey": "speech → face", "seed": seed}
        faces = self.decode(features, styles=styles, embedding=embedding.cpu(), details=details)
        return faces if n is not None else faces[0]

    def reface(
        self,
        photo: Any,
        *,
        index: int | None = None,
        no_detect: bool = False,
        skin: Source = "photo",
        looks: Source = "photo",
        refine: int = REFINE,
    ) -> Face:
        """Photo → face feature → canonical face: what the decoder makes of a known face.

        Args:
            photo: anything :func:`crossmodal.faces.load_image` reads, or ``-``.
            index: which face of a group picture, counted from the largest (0).
            no_detect: take the whole picture for the face.
            skin: where the colour of the skin comes from. ``photo``: measured in it, as far as the light can be told
                from the skin (:mod:`crossmodal.skin`); ``feature``: the face feature alone, which hardly holds it.
            looks: where beard, brows, folds and hair come from. ``photo``: what it shows, as far as a face explains it
                (:mod:`crossmodal.models.appearance`); ``feature``: the face feature alone.
            refine: steps that bring the drawn face's own feature nearer to the photo's (:mod:`crossmodal.refinement`),
                about .1 s each on one core; 0 draws what the feature alone gives.

        Raises:
            ImageError: the picture cannot be read or shows no face.
            ConfigError: ``refine`` is out of range.
        """
        import torch

        from crossmodal import refinement
        from crossmodal.skin import likely, measure

        if not 0 <= refine <= 100:
            raise ConfigError(f"{refine} steps asked for", source="refine", remedy="ask for 0 to 100")
        decoder, network = self.module("face-decoder"), self.module("face-features")
        read = self.read_face(photo, network.space, index=index, no_detect=no_detect)
        feature = self.chip_feature(read.chip).clone()[None]  # (1, D) outside inference mode: gradients may pass
        inputs = feature.to(self.device)
        aligned = network.space == "dlib-128"  # what is measured lies where that network's chips have it
        measured = measure(read.chip) if aligned else None
        colour: torch.Tensor | None = None
        if measured is not None and skin == "photo":
            expected = decoder.skin(inputs).detach().cpu().numpy()
            colour = torch.from_numpy(likely(expected, measured)).float().to(self.device)
        portrait: torch.Tensor | None = None
        if aligned and looks == "photo" and decoder.appearance is not None:
            portrait = self._portrait(read, decoder.skin(inputs) if colour is None else colour, measured)
        describer = refinement.describer_of(decoder, network)
        steps = refine if aligned else 0
        drawn = refinement.refine(decoder, describer, inputs, colour, portrait, steps=steps)
        details = {
            "journey": "photo → canonical face",
            "skin": "feature" if colour is None else "photo",
            "looks": "feature" if portrait is None else "photo",
            "refine": steps,
        }
        return self._faces(drawn, feature, details=details)[0]

    def _portrait(self, read: FaceChip, skin: torch.Tensor, measured: np.ndarray | None) -> torch.Tensor:
        """The photo in the decoder's frame ``(1, 3, S, S)``, in the light in which its skin is ``skin`` ``(1, 3)``."""
        import torch

        from crossmodal import faces
        from crossmodal.portrait import relit

        decoder = self.module("face-decoder")
        pupils = decoder.portrait_pupils()
        cells = faces.portrait(read.picture, read.face, pupils, decoder.config.portrait)
        picture = relit(cells, pupils, skin[0].detach().cpu().numpy(), measured)
        return torch.from_numpy(picture).permute(2, 0, 1)[None].to(self.device)

    def decode(
        self,
        features: torch.Tensor,
        *,
        styles: torch.Tensor | None = None,
        embedding: torch.Tensor | None = None,
        details: dict[str, Any] | None = None,
    ) -> list[Face]:
        """Face features ``(B, D)`` → faces, with hair of ``styles`` ``(B,)``, or with the likeliest."""
        import torch

        with torch.inference_mode():
            decoded = self.module("face-decoder")(features.to(self.device), style=styles)
        return self._faces(decoded, features, embedding=embedding, details=details)

    def _faces(
        self,
        decoded: DecodedFace,
        features: torch.Tensor,
        *,
        embedding: torch.Tensor | None = None,
        details: dict[str, Any] | None = None,
    ) -> list[Face]:
        """What the decoder drew from ``features`` ``(B, D)`` → faces."""
        from PIL import Image

        pixels = (decoded.image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
        made_by = {"bundle": f"{self.bundle.info.name} {self.bundle.info.version}", **(details or {})}
        return [
            Face(
                image=Image.fromarray(picture),
                landmarks=points,
                feature=feature.clone(),
                embedding=embedding,
                details={**made_by, "hypothesis": i} if len(pixels) > 1 else made_by,
            )
            for i, (picture, points, feature) in enumerate(
                zip(pixels, decoded.landmarks.cpu().numpy(), features.float().cpu(), strict=True)
            )
        ]
