"""Voice → face on speakers that training has not heard: gender, steadiness, order along the cue, and spread.

Both routes of :class:`~crossmodal.speech2face.Speech2Face` are measured alike: speaker embedding → feature head, and
spectrogram → voice encoder, which draws one face for a voice and so has no spread. Nobody's face is known here, so
nothing is said about likeness: only whether the face fits what the voice tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.prepared_faces import PreparedFaces
from crossmodal.data.prepared_voices import change_voice
from crossmodal.data.pseudo_pairs import Axis
from crossmodal.data.starter_split import STUDIO_VOICES, split_of
from crossmodal.errors import AudioError, DataError
from crossmodal.evaluation.faces import decode, describe_drawn
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.models.face_decoder import FaceDecoder
from crossmodal.models.feature_head import FeatureHead
from crossmodal.models.speaker_encoder import SpeakerEncoder
from crossmodal.models.voice_encoder import ASTVoiceEncoder, ConvVoiceEncoder

if TYPE_CHECKING:
    from PIL import Image

    from crossmodal.speech2face import Route, Speech2Face

FaceOf = Callable[[Sequence[np.ndarray]], np.ndarray]
"""What a route does: waveforms ``(T,)`` at 16 kHz → face features ``(N, D)``."""

SHIFTS = (1.25, 1.16, 1.08, 1.0, 0.93, 0.86, 0.8)
"""Factors on pitch and formants, from high to low."""
GRID = {"bbaf2n": True, "pwij3p": True, "brbk7n": False, "lrwp9a": False}
"""Talking-face clips of the GRID corpus by name: do they show a man?"""
_RATE = 16_000


@dataclass
class HeldOutVoice:
    """Speech of one held-out speaker, in two parts that share no sound."""

    speaker: str
    male: bool
    one: np.ndarray
    """``(T,)`` 16 kHz."""
    other: np.ndarray


def held_out_voices(data: Path, *, seconds: float = 6.0, limit: int = 0) -> list[HeldOutVoice]:
    """The test speakers of LibriSpeech (halves of one clip) and AN4 (different clips), and ``slt`` of CMU ARCTIC.

    Args:
        data: folder with ``librispeech``, ``an4`` and ``cmu_arctic``.
        seconds: of each part, at most.
        limit: most speakers of each corpus; 0 for all.

    Raises:
        DataError: there is no held-out speech.
    """
    from crossmodal import audio
    from crossmodal.data.speech_features import starter_rows

    files: dict[tuple[str, str], list[Path]] = {}
    genders: dict[tuple[str, str], str] = {}
    for row in starter_rows(data, ("librispeech", "an4", "arctic")):
        if row.audio is None or row.attributes.get("gender") not in ("female", "male"):
            continue
        studio = row.speaker in STUDIO_VOICES
        # One person may have a second AN4 session under a name of its own.
        if (row.speaker == "slt") if studio else split_of(row.corpus, row.speaker, row.id) == "test":
            key = (row.corpus, row.speaker)
            files.setdefault(key, []).append(row.audio)
            genders[key] = row.attributes["gender"]
    voices: list[HeldOutVoice] = []
    taken: dict[str, int] = {}
    most = int(seconds * _RATE)
    for (corpus, speaker), paths in sorted(files.items()):
        if limit and taken.get(corpus, 0) >= limit:
            continue
        clips = [audio.load(path) for path in sorted(paths)[:12]]
        if len(clips) == 1:
            half = len(clips[0]) // 2
            parts = [clips[0][:half], clips[0][half:]]
        else:
            parts = [np.concatenate(clips[0::2]), np.concatenate(clips[1::2])]
        try:
            one, other = (audio.load_speech(part[:most], sample_rate=_RATE) for part in parts)
        except AudioError:
            continue  # too little speech to say anything
        taken[corpus] = taken.get(corpus, 0) + 1
        voices.append(HeldOutVoice(f"{corpus}/{speaker}", genders[corpus, speaker] == "male", one, other))
    if not voices:
        raise DataError("holds no speech of held-out speakers", source=data)
    return voices


def by_embedding(head: FeatureHead, encoder: SpeakerEncoder) -> FaceOf:
    """Speaker embedding → the most typical face of the feature head."""

    @torch.no_grad()
    def face_of(waveforms: Sequence[np.ndarray]) -> np.ndarray:
        return head.mode(encoder.embed_batch(list(waveforms))).numpy()

    return face_of


def by_spectrogram(encoder: ConvVoiceEncoder | ASTVoiceEncoder) -> FaceOf:
    """Spectrogram → voice encoder, one waveform after another, each repeated or cut to the encoder's length."""

    def one(waveform: np.ndarray) -> Tensor:
        return encoder(encoder.features(torch.from_numpy(np.asarray(waveform, dtype=np.float32))[None]))

    @torch.no_grad()
    def face_of(waveforms: Sequence[np.ndarray]) -> np.ndarray:
        return torch.cat([one(waveform) for waveform in waveforms]).float().numpy()

    return face_of


def evaluate_voices(
    journey: Speech2Face,
    data: Path,
    people: PreparedFaces,
    probe: Axis,
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    route: Route = "auto",
    limit: int = 0,
) -> tuple[list[Figure], Image.Image]:
    """All figures of one route of a bundle, and a sheet of the faces that some voices get.

    Args:
        journey: of the bundle.
        data: the development data.
        people: real people, for the population the hypotheses are compared with.
        probe: gender on features of real faces, positive for men.
        describe: face chips uint8 → features.
        route: ``auto`` takes what the bundle has, the embedding first, as the journey does.
        limit: most speakers of each corpus; 0 for all.

    Raises:
        BundleError: the bundle lacks a network of the route.
        DataError: there is no held-out speech.
    """
    from crossmodal.evaluation.face_pictures import voice_sheet
    from crossmodal.speech2face import resolve_route

    decoder = journey.module("face-decoder")
    if resolve_route(route, journey.bundle) == "spectrogram":
        face_of = by_spectrogram(journey.module("voice-encoder"))
        voices = held_out_voices(data, limit=limit)
        figures = measure_voices(face_of, decoder, voices, probe, describe) + grid_gender(face_of, data, probe)
        return figures, voice_sheet(lambda waveform, seed: face_of([waveform]), decoder, voices)
    head, encoder = journey.module("feature-head"), journey.module("speaker-encoder")
    face_of = by_embedding(head, encoder)
    voices = held_out_voices(data, limit=limit)
    figures = measure_voices(face_of, decoder, voices, probe, describe)
    figures += measure_hypotheses(head, decoder, encoder, voices, people, probe, describe)
    figures += grid_gender(face_of, data, probe)

    def six(waveform: np.ndarray, seed: int) -> np.ndarray:
        return head.sample(encoder.embed(waveform)[None], 6, generator=torch.Generator().manual_seed(seed))[0].numpy()

    return figures, voice_sheet(six, decoder, voices)


@torch.no_grad()
def measure_voices(
    face_of: FaceOf,
    decoder: FaceDecoder,
    voices: Sequence[HeldOutVoice],
    probe: Axis,
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
) -> list[Figure]:
    """The figures of voice → face that every route has.

    Args:
        face_of: the route.
        decoder: face feature → face.
        voices: see :func:`held_out_voices`.
        probe: gender on features of real faces, positive for men.
        describe: face chips uint8 → features.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    male = np.array([v.male for v in voices])
    chance = float(max(male.mean(), 1 - male.mean()))

    def right(features: np.ndarray) -> np.ndarray:
        return ((probe.score(features) > 0) == male).astype(float)

    first, second = face_of([v.one for v in voices]), face_of([v.other for v in voices])
    drawn = describe_drawn(decode(decoder, first)[2], describe)
    figures = [
        figure("voice: gender of the drawn face agrees", right(drawn), reference=chance, reference_name="chance")
    ]
    for name, change in (("8 kHz", "phone"), ("10 dB noise", "noise"), ("1.5 s", "short")):
        changed = face_of([change_voice(v.one, change, 1.0, rng) for v in voices])
        figures.append(
            figure(f"voice: gender agrees, {name}", right(changed), reference=chance, reference_name="chance")
        )
        figures.append(figure(f"voice: distance to the face from clean speech, {name}", _distance(first, changed)))
    others = np.array([_distance(first[i : i + 1], np.delete(first, i, 0)).mean() for i in range(len(first))])
    figures.append(
        figure(
            "voice: distance of faces, one speaker, two recordings",
            _distance(first, second),
            reference=float(others.mean()),
            reference_name="different speakers",
        )
    )
    return figures + _order(face_of, voices, probe)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


def _order(face_of: FaceOf, voices: Sequence[HeldOutVoice], probe: Axis) -> list[Figure]:
    """Does the face grow more masculine at each step as one voice's pitch and formants are lowered?"""
    from scipy.stats import spearmanr

    steps, ranks = [], []
    rng = np.random.default_rng(0)
    chosen = [v for male in (False, True) for v in [v for v in voices if v.male == male][:10]]
    for voice in chosen:
        shifted = [change_voice(voice.one, "shifted", factor, rng) for factor in SHIFTS]
        scores = probe.score(face_of(shifted))
        steps.append(float((np.diff(scores) > 0).mean()))
        ranks.append(float(spearmanr(scores, -np.array(SHIFTS)).statistic))
    return [
        figure("voice lowered: steps to a more masculine face", steps, reference=0.5, reference_name="chance"),
        figure("voice lowered: rank correlation with the face", ranks, reference=0.0, reference_name="chance"),
    ]


@torch.no_grad()
def measure_hypotheses(
    head: FeatureHead,
    decoder: FaceDecoder,
    encoder: SpeakerEncoder,
    voices: Sequence[HeldOutVoice],
    prepared: PreparedFaces,
    probe: Axis,
    describe: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
) -> list[Figure]:
    """Four hypotheses for each of some voices: how different, of the right gender, and from the whole population?

    Args:
        head: embedding → face features.
        decoder: face feature → face.
        encoder: speech → embedding.
        voices: see :func:`held_out_voices`.
        prepared: real people, for the population the hypotheses are compared with.
        probe: gender on features of real faces, positive for men.
        describe: face chips uint8 → features.
        seed: of the hypotheses.
    """
    chosen = [v for male in (False, True) for v in [v for v in voices if v.male == male][:6]]
    embedding = encoder.embed_batch([v.one for v in chosen])
    drawn = []
    for i in range(len(chosen)):
        generator = torch.Generator().manual_seed(seed + i)
        features = head.sample(embedding[i : i + 1], 4, generator=generator)[0]
        styles = decoder.draw_styles(features, generator)
        drawn.append(describe_drawn(decode(decoder, features.numpy(), styles=styles)[2], describe))
    faces = np.stack(drawn)  # (V, 4, D)
    pairs = np.linalg.norm(faces[:, :, None] - faces[:, None], axis=-1) + 9 * np.eye(4)
    male = np.array([v.male for v in chosen])
    agree = ((probe.score(faces.reshape(-1, faces.shape[-1])).reshape(len(chosen), 4) > 0) == male[:, None]).mean(1)
    photos = prepared.photos
    real = photos.copy == 0
    white = np.array([row.get("ethnicity") == "white" for row in prepared.attributes])
    centres = [photos.features[real & (white[photos.person] == kind)].mean(0) for kind in (False, True)]
    further = faces[:, 1:]
    other = _distance(further, centres[0]) < _distance(further, centres[1])  # (V, 3)
    different = prepared.feature(0)
    real_share = (_distance(different, centres[0]) < _distance(different, centres[1])).mean()
    between = np.linalg.norm(different[:, None] - different[None], axis=-1)[~np.eye(len(different), dtype=bool)]
    return [
        figure(
            "four hypotheses: smallest distance between two", pairs.min((1, 2)),
            reference=float(between.mean()), reference_name="two real people on average",
        ),
        figure("four hypotheses: gender agrees", agree, reference=0.5, reference_name="chance"),
        figure(
            "further hypotheses: nearer to the non-white mean", other.mean(1),
            reference=float(real_share), reference_name="of the real people",
        ),
    ]  # fmt: skip


def grid_gender(face_of: FaceOf, data: Path, probe: Axis) -> list[Figure]:
    """The four talking-face clips of GRID, of which two show women; empty where they are not there."""
    from crossmodal import audio

    paths = [p for p in sorted((data / "grid_clips").glob("*")) if p.stem in GRID]
    if not paths:
        return []
    right = []
    for path in paths:
        feature = face_of([audio.load_speech(path)])
        right.append(float((probe.score(feature)[0] > 0) == GRID[path.stem]))
    return [figure("GRID clips: gender agrees", right, reference=0.5, reference_name="chance")]
