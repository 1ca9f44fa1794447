"""The two journeys as classes, on a bundle of debug networks, with generated voices and faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import audio
from crossmodal.errors import (
    BundleError,
    ConfigError,
    DependencyError,
    NoFaceError,
    NoSpeechError,
    TextError,
    UnreadableImageError,
)
from crossmodal.face2speech import Face2Speech, join
from crossmodal.journey import resolve_device, sniff
from crossmodal.speech2face import Speech2Face
from tests.debug_bundle import write_debug_bundle
from tests.generated import drawn_face, sung_voice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug bundle, a generated voice and a generated photo."""
    folder = tmp_path_factory.mktemp("journeys")
    write_debug_bundle(folder / "bundle")
    audio.save_wav(folder / "voice.wav", sung_voice(3.0, 120.0, seed=0), 16_000)
    drawn_face(320, seed=0).save(folder / "face.png")
    return folder


@pytest.fixture(scope="module")
def s2f(folder: Path) -> Speech2Face:
    return Speech2Face.from_pretrained(folder / "bundle", device="cpu")


@pytest.fixture(scope="module")
def f2s(folder: Path) -> Face2Speech:
    return Face2Speech.from_pretrained(folder / "bundle", device="cpu")


def test_one_face_from_a_file_and_from_its_samples(s2f, folder, tmp_path):
    face = s2f(folder / "voice.wav")
    assert face.image.mode == "RGB"
    assert face.landmarks.ndim == 2
    assert face.landmarks.shape[1] == 2
    assert face.feature.shape == (128,)
    assert face.embedding is not None
    assert float(face.embedding.norm()) == pytest.approx(1.0, abs=1e-4)
    same = s2f(audio.load(folder / "voice.wav"), sample_rate=16_000)
    assert np.array_equal(np.asarray(face.image), np.asarray(same.image))
    with Image.open(face.save(tmp_path / "f.png")) as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(face.image))
        assert "crossmodal" in " ".join(map(str, saved.info.values()))


def test_hypotheses_are_seeded_and_differ(s2f, folder):
    first, again, other = (s2f(folder / "voice.wav", n=3, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 3
    assert all(torch.equal(a.feature, b.feature) for a, b in zip(first, again))
    assert torch.equal(first[0].feature, other[0].feature)  # the most likely face does not depend on the seed
    assert not torch.equal(first[1].feature, other[1].feature)
    assert not torch.equal(first[1].feature, first[2].feature)
    assert torch.equal(first[0].feature, s2f(folder / "voice.wav").feature)


def test_spectrogram_route(s2f, folder):
    face = s2f(folder / "voice.wav", route="spectrogram")
    assert face.feature.shape == (128,)
    with pytest.raises(BundleError, match="one face only"):
        s2f(folder / "voice.wav", n=2, route="spectrogram")


def test_reface_uses_the_photo(s2f, folder):
    one, other = s2f.reface(folder / "face.png"), s2f.reface(drawn_face(320, seed=5))
    assert not torch.equal(one.feature, other.feature)


def test_reface_takes_the_skin_from_where_it_is_told_to(s2f, folder, monkeypatch):
    told = []
    decoder = s2f.module("face-decoder")
    code = decoder._code

    def listen(x, h, skin=None, *rest):
        told.append(skin)
        return code(x, h, skin, *rest)

    monkeypatch.setattr(decoder, "_code", listen)
    assert s2f.reface(folder / "face.png").details["skin"] == "photo"
    assert s2f.reface(folder / "face.png", skin="feature").details["skin"] == "feature"
    grey = Image.open(folder / "face.png").convert("L").convert("RGB")
    assert s2f.reface(grey).details["skin"] == "feature"
    assert told[0].shape == (1, 3)
    assert told[1:] == [None, None]


def test_reface_takes_the_looks_from_where_it_is_told_to(s2f, folder, monkeypatch):
    told = []
    decoder = s2f.module("face-decoder")
    code = decoder._code

    def listen(x, h, skin=None, portrait=None, *rest):
        told.append(portrait)
        return code(x, h, skin, portrait, *rest)

    monkeypatch.setattr(decoder, "_code", listen)
    points = decoder.basis.mean_points.clone()
    points[:2] = torch.tensor([[22.0, 28.0], [41.0, 28.0]])  # of the debug decoder's, none is a pupil
    monkeypatch.setitem(decoder.basis._buffers, "mean_points", points)
    ours, plain = s2f.reface(folder / "face.png"), s2f.reface(folder / "face.png", looks="feature")
    assert (ours.details["looks"], plain.details["looks"]) == ("photo", "feature")
    assert told[0].shape == (1, 3, decoder.config.portrait, decoder.config.portrait)
    assert float(told[0].isfinite().float().mean()) > 0.3
    assert told[1] is None


def test_reface_refines_as_often_as_it_is_told_to(s2f, folder):
    assert s2f.reface(folder / "face.png").details["refine"] == 5
    assert s2f.reface(folder / "face.png", refine=0).details["refine"] == 0
    with pytest.raises(ConfigError, match="-1 steps"):
        s2f.reface(folder / "face.png", refine=-1)


def test_speech_from_a_face_and_from_a_voice(f2s, folder, tmp_path):
    spoken = f2s(folder / "face.png", "Hello there.")
    assert spoken.waveform.dtype == np.float32
    assert np.isfinite(spoken.waveform).all()
    assert np.abs(spoken.waveform).max() <= 1.0
    again = f2s(folder / "face.png", "Hello there.")
    assert np.array_equal(spoken.waveform, again.waveform)
    cloned = f2s.speak("Hello there.", voice=folder / "voice.wav")
    assert not torch.equal(cloned.embedding, spoken.embedding)
    saved = audio.load(cloned.save(tmp_path / "s.wav", watermark=False))
    assert len(saved) == len(cloned.waveform)


def test_speed_changes_the_duration(f2s, folder):
    text, embedding = "One two three four five six seven.", f2s.face_embedding(folder / "face.png")
    slow, fast = (f2s.speak(text, embedding=embedding, speed=s).seconds for s in (0.5, 2.0))
    assert slow > 1.5 * fast


@pytest.mark.parametrize("text", ["", "   \n", "...!?", "—"])
def test_nothing_to_say(f2s, folder, text):
    with pytest.raises(TextError):
        f2s(folder / "face.png", text)


def test_wrong_arguments(f2s, s2f, folder):
    with pytest.raises(ConfigError, match="exactly one"):
        f2s.speak("Hello.")
    with pytest.raises(ConfigError, match="exactly one"):
        f2s.speak("Hello.", face=folder / "face.png", voice=folder / "voice.wav")
    for options in ({"speed": 3.0}, {"pitch": 40.0}, {"speed": float("nan")}):
        with pytest.raises(ConfigError, match="out of range"):
            f2s(folder / "face.png", "Hello.", **options)
    with pytest.raises(ConfigError, match="hypotheses"):
        s2f(folder / "voice.wav", n=0)


def test_inputs_that_cannot_be_used(s2f, f2s, folder, tmp_path):
    with pytest.raises(NoSpeechError):
        s2f(np.zeros(16_000 * 3, np.float32), sample_rate=16_000)
    Image.new("RGB", (300, 300), (90, 120, 90)).save(tmp_path / "lawn.png")
    with pytest.raises(NoFaceError, match=r"lawn\.png"):
        f2s(tmp_path / "lawn.png", "Hello.")
    with pytest.raises(UnreadableImageError):
        f2s(folder / "voice.wav", "Hello.")


def test_a_bundle_without_the_network(tmp_path, folder):
    write_debug_bundle(tmp_path / "b", without=("feature-head", "vocoder"))
    partial = Speech2Face.from_pretrained(tmp_path / "b", device="cpu")
    assert partial(folder / "voice.wav").feature.shape == (128,)  # falls back to the spectrogram route
    with pytest.raises(BundleError, match="has no vocoder"):
        Face2Speech.from_pretrained(tmp_path / "b", device="cpu")(folder / "face.png", "Hello.")


def test_embed_and_match(s2f, folder):
    assert [s2f.embed(folder / name)[0] for name in ("voice.wav", "face.png")] == ["voice", "face"]
    alike = s2f.match(folder / "voice.wav", folder / "voice.wav")
    assert alike.cosine == pytest.approx(1.0, abs=1e-5)
    assert alike.percentile == 1.0
    assert alike.same == 0.85
    mixed = s2f.match(folder / "voice.wav", folder / "face.png")
    assert mixed.kinds == ("voice", "face")
    assert mixed.same is None
    assert "identifies no one" in mixed.reading


def test_sniffing(folder):
    assert sniff(folder / "voice.wav") == "voice"
    assert sniff(folder / "face.png") == "face"
    assert sniff(np.zeros((64, 64, 3), np.uint8)) == "face"
    assert sniff(np.zeros(16_000, np.float32)) == "voice"
    assert sniff(folder / "absent") == "voice"


def test_join_has_pauses_and_no_steps():
    parts = [np.full(1600, 0.9, np.float32), np.full(800, -0.9, np.float32)]
    joined = join(parts, 16_000, pause=0.1)
    assert len(joined) == 1600 + 1600 + 800
    assert np.abs(np.diff(joined)).max() < 0.02
    assert np.all(joined[1600:3200] == 0)
    assert np.abs(join([np.full(100, 3.0, np.float32)], 16_000, pause=0.1)).max() <= 0.98 + 1e-6
    assert len(join([np.zeros(1, np.float32)], 16_000, pause=0.1)) == 1


def test_journeys_share_their_networks(folder):
    one = Speech2Face.from_pretrained(folder / "bundle", device="cpu")
    other = Face2Speech.from_pretrained(folder / "bundle", device="cpu").share(one)
    assert one.module("vocoder") is other.module("vocoder")


def test_device_names():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(DependencyError, match="unknown device"):
        resolve_device("gpu9")
    if not torch.cuda.is_available():
        with pytest.raises(DependencyError, match="no CUDA"):
            resolve_device("cuda")
