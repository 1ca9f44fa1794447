"""What both journeys share: a bundle, a device, networks loaded when first needed, and the one embedding.

A voice enters the shared space through the speaker encoder, a face through the face encoder; speaking, drawing and
matching all start from the vector they return.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from crossmodal.bundle import Bundle
from crossmodal.errors import DependencyError, SpaceMismatchError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from crossmodal.faces import FaceChip

Self = TypeVar("Self", bound="Journey")
Kind = Literal["voice", "face"]


def resolve_device(device: str = "auto") -> torch.device:
    """``auto`` → CUDA when there is one, else CPU.

    Raises:
        DependencyError: no such kind of device is known, there is no CUDA, or no CUDA device of that number.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (colon and not number.isdecimal()):
        raise DependencyError(f"unknown device '{device}'", remedy="use auto, cpu, cuda or cuda:N")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DependencyError("no CUDA device is available", source=device, remedy="use --device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise DependencyError(
            f"there are {count} CUDA devices", source=device, remedy=f"use cuda:0 to cuda:{count - 1}"
        )
    return chosen


def sniff(source: Any) -> Kind:
    """Tell a face from a voice by content: what Pillow recognises is a face, everything else is taken for a voice."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return "face"
    if isinstance(source, str | Path | io.BufferedIOBase):
        try:
            with Image.open(source):  # type: ignore[arg-type]
                return "face"
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            is_heif = False
            if isinstance(source, str | Path) and Path(source).is_file():
                with open(source, "rb") as file:
                    head = file.read(32)
                is_heif = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"hevc")
            return "face" if is_heif else "voice"
        finally:
            if isinstance(source, io.BufferedIOBase) and source.seekable():
                source.seek(0)
    return "face" if np.ndim(source) >= 2 and np.shape(source)[-1] in (3, 4) else "voice"


class _StandardInput(io.BytesIO):
    """What came by standard input, under the name that messages use."""

    name = "standard input"


def read_stdin(source: Any) -> Any:
    """``-`` → the bytes of standard input as a file object; anything else unchanged."""
    return _StandardInput(sys.stdin.buffer.read()) if isinstance(source, str) and source == "-" else source


@dataclass(frozen=True)
class Match:
    """How alike two voices, two faces, or a voice and a face are in the shared embedding."""

    cosine: float
    kinds: tuple[Kind, Kind]
    percentile: float | None
    """Share (0–1) of pairs of *different* people of these kinds that are less alike; ``None`` without calibration."""
    floor: float | None
    """Mean cosine of different people of these kinds."""
    same: float | None
    """Mean cosine of the same person, where that could be measured; never for a voice and a face."""

    @property
    def reading(self) -> str:
        """The figure in words, against its floor."""
        if self.floor is None or self.percentile is None:
            return f"cosine {self.cosine:.2f} (this bundle has no calibration to compare with)"
        text = f"cosine {self.cosine:.2f}; different people average {self.floor:.2f}"
        if self.same is not None:
            text += f", the same person {self.same:.2f}"
        text += f"; more alike than {100 * self.percentile:.0f} % of different pairs"
        if self.kinds[0] != self.kinds[1]:
            text += (
                ". A face and a voice share little beyond how masculine or feminine they seem: this identifies no one"
            )
        return text


class Journey:
    """A bundle on a device. Subclasses are the two directions; both can embed and match."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = resolve_device(device)
        self._modules: dict[str, nn.Module] = {}

    @classmethod
    def from_pretrained(cls: type[Self], source: str | Path | None = None, *, device: str = "auto") -> Self:
        """Open the starter (default), a bundle folder, or a Hugging Face Hub id.

        Raises:
            BundleError: there is no such bundle or it is damaged.
        """
        return cls(Bundle.open(source), device)

    def share(self: Self, other: Journey) -> Self:
        """Use the bundle, the device and the loaded networks of ``other``: nothing is loaded twice. Returns itself."""
        self.bundle, self.device, self._modules = other.bundle, other.device, other._modules
        return self

    def module(self, role: str) -> Any:
        """The network of ``role`` (see :data:`crossmodal.bundle.ROLES`), loaded on first use."""
        if role not in self._modules:
            import torch

            with torch.inference_mode(False):  # what is loaded in inference mode can never be differentiated through
                self._modules[role] = self.bundle.load(role, self.device)
        return self._modules[role]

    def voice_embedding(self, voice: Any, *, sample_rate: int | None = None) -> torch.Tensor:
        """Speech → speaker embedding ``(E,)`` on the CPU, a ``(256,)`` unit vector in the starter. It comes from the
        bundle's speaker encoder, else from that of its TTS.

        Args:
            voice: a file of any kind with sound in it, ``-``, an array or a tensor ``(T,)`` with its ``sample_rate``.

        Raises:
            AudioError: the sound cannot be read or holds less than half a second of speech.
        """
        import torch

        from crossmodal import audio

        waveform = audio.load_speech(read_stdin(voice), sample_rate=sample_rate)
        with torch.inference_mode():
            return self.module(self._listener()).embed(waveform).float().cpu().clone()

    def _listener(self) -> str:
        """The role that embeds voices."""
        return "tts" if "tts" in self.bundle and "speaker-encoder" not in self.bundle else "speaker-encoder"

    @property
    def embedding_space(self) -> str:
        """Name of the space in which voices and faces meet; empty if the bundle does not say.

        Raises:
            SpaceMismatchError: its encoders of voices and of faces name different spaces.
        """
        listed = self.bundle.info.modules
        listener = listed.get(self._listener())
        heard = "" if listener is None else listener.output_space or listener.input_space
        seen = listed["face-encoder"].output_space if "face-encoder" in listed else ""
        if heard and seen and heard != seen:
            raise SpaceMismatchError(f"embeds voices in '{heard}', faces in '{seen}'", source=self.bundle.folder)
        return heard or seen

    def read_face(self, photo: Any, space: str, *, index: int | None = None, no_detect: bool = False) -> FaceChip:
        """Photo → the chip aligned as the network of the feature space ``space`` wants it.

        Args:
            photo: anything :func:`crossmodal.faces.load_image` reads, or ``-``.
            space: feature space.
            index: which face of a group picture, counted from the largest (0).
            no_detect: take the whole picture for the face.

        Raises:
            NoFaceError: no face was found. ImageError: the picture cannot be read.
        """
        from crossmodal import faces

        return faces.read_face(read_stdin(photo), space, index=index, no_detect=no_detect)

    def face_feature(self, photo: Any, *, index: int | None = None, no_detect: bool = False) -> torch.Tensor:
        """Photo → face feature ``(D,)`` on the CPU, in the space that the bundle's decoder reads."""
        space = self.module("face-features").space
        return self.chip_feature(self.read_face(photo, space, index=index, no_detect=no_detect).chip)

    def chip_feature(self, chip: np.ndarray) -> torch.Tensor:
        """Chip ``(S, S, 3)`` uint8 of :meth:`read_face` → face feature ``(D,)`` on the CPU."""
        import torch

        network = self.module("face-features")
        with torch.inference_mode():
            return network(network.preprocess(chip[None]).to(self.device))[0].float().cpu().clone()

    def face_embedding(self, photo: Any, *, index: int | None = None, no_detect: bool = False) -> torch.Tensor:
        """Photo → ``(E,)`` in the speaker space, on the CPU; a ``(256,)`` unit vector in the starter."""
        import torch

        encoder = self.module("face-encoder")
        if aligned_for := getattr(encoder.config, "chip", ""):  # it reads pixels, not a face feature
            chip = self.read_face(photo, aligned_for, index=index, no_detect=no_detect).chip
            inputs = encoder.preprocess(chip[None])
        else:
            inputs = self.face_feature(photo, index=index, no_detect=no_detect)[None]
        with torch.inference_mode():
            return encoder(inputs.to(self.device))[0].float().cpu().clone()

    def embed(
        self, source: Any, *, kind: Kind | None = None, index: int | None = None, no_detect: bool = False
    ) -> tuple[Kind, torch.Tensor]:
        """Embed a voice or a face, told apart by content unless ``kind`` says so → (kind, ``(256,)``).

        Of a photo, ``index`` and ``no_detect`` choose the face as in :meth:`read_face`.
        """
        source = read_stdin(source)
        kind = kind or sniff(source)
        if kind == "voice":
            return kind, self.voice_embedding(source)
        return kind, self.face_embedding(source, index=index, no_detect=no_detect)

    def match(self, one: Any, other: Any, *, index: int | None = None, no_detect: bool = False) -> Match:
        """Compare any two of voice and face, and say what the cosine means; ``index``, ``no_detect`` as in embed."""
        kind_one, a = self.embed(one, index=index, no_detect=no_detect)
        kind_other, b = self.embed(other, index=index, no_detect=no_detect)
        cosine = float(a @ b / (a.norm() * b.norm()).clamp_min(1e-12))
        kinds: tuple[Kind, Kind] = (kind_one, kind_other)
        known = self.bundle.calibration().get("-".join(sorted(kinds)))
        if not known:
            return Match(cosine, kinds, None, None, None)
        quantiles = np.asarray(known["different"]["quantiles"], dtype=float)
        levels = np.linspace(0.0, 1.0, len(quantiles))
        percentile = float(np.interp(cosine, quantiles, levels, left=0.0, right=1.0))
        same = known.get("same")
        return Match(
            cosine, kinds, percentile, float(known["different"]["mean"]), float(same["mean"]) if same else None
        )
