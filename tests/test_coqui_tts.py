"""VITS, YourTTS and XTTS in coqui-tts's own format: import, bundle, both ways into their speaker spaces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from crossmodal.bundle import Bundle, BundleWriter
from crossmodal.errors import BundleError, ConfigError, SpaceMismatchError, TextError
from crossmodal.face2speech import Face2Speech
from crossmodal.models import build
from crossmodal.models.coqui_import import import_coqui, read_checkpoint, read_json
from crossmodal.models.coqui_tts import CoquiTTS, debug_settings
from crossmodal.models.xtts import XTTS, XTTSConfig
from crossmodal.models.xtts import debug_settings as xtts_settings
from tests.generated import drawn_face, sung_voice

pytest.importorskip("TTS", reason="coqui-tts is not installed")
TEXT = "the wind and the sun."


def _save(folder: Path, settings: dict[str, Any], **files: Any) -> Any:
    """A randomly initialised model as coqui's trainer leaves it: config.json, model.pth. Returns coqui's model."""
    from TTS.tts.configs.vits_config import VitsConfig
    from TTS.tts.models.vits import Vits

    folder.mkdir()
    config = VitsConfig()
    config.from_dict(settings)
    torch.manual_seed(2)
    model = Vits(config).eval()
    state = {"config": config.to_dict(), "model": model.state_dict(), "optimizer": None, "step": 3, "epoch": 1}
    torch.save(state, folder / "model.pth")
    kept = config.to_dict()
    kept["model_args"]["speakers_file"] = "/home/somebody/speakers.json"  # as published files have them
    kept["datasets"] = [{"path": "/home/somebody/data", "language": "en"}]
    (folder / "config.json").write_text(json.dumps(kept))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return model


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A VITS on 256-d vectors."""
    folder = tmp_path_factory.mktemp("coqui") / "vits"
    return folder, _save(folder, debug_settings(256))


@pytest.fixture(scope="module")
def yourtts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """YourTTS's layout: 512-d vectors by a speaker encoder in the folder, three languages."""
    folder = tmp_path_factory.mktemp("coqui") / "yourtts"
    languages = {"en": 1, "fr-fr": 0, "pt-br": 2}
    settings = debug_settings(512, use_language_embedding=True, embedded_language_dim=4)
    model = _save(
        folder, {**settings, "languages": sorted(languages, key=languages.__getitem__)}, language_ids=languages
    )
    from TTS.encoder.models.resnet import ResNetSpeakerEncoder

    audio = {"fft_size": 512, "win_length": 400, "hop_length": 160, "sample_rate": 16000, "preemphasis": 0.97,
             "num_mels": 64}  # fmt: skip
    params = {"model_name": "resnet", "input_dim": 64, "proj_dim": 512, "log_input": True, "use_torch_spec": True}
    (folder / "config_se.json").write_text(
        json.dumps({"model": "speaker_encoder", "audio": audio, "model_params": params})
    )
    encoder = ResNetSpeakerEncoder(64, 512, log_input=True, use_torch_spec=True, audio_config=audio).eval()
    torch.save({"model": encoder.state_dict(), "step": 1}, folder / "model_se.pth")
    return folder, (model, encoder)


def _theirs(model: Any, vector: torch.Tensor | None, *, seed: int, **more: Any) -> torch.Tensor:
    """coqui's own inference."""
    tokens = model.tokenizer.text_to_ids(TEXT, language="en")
    given = {"x_lengths": None, "d_vectors": vector, "speaker_ids": None, "language_ids": None, **more}
    torch.manual_seed(seed)
    return model.inference(torch.tensor([tokens]), given)["model_outputs"][0, 0]


def test_vits_says_what_coqui_says(vits: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = vits
    with pytest.raises(BundleError, match="256 components of an unknown kind"):
        import_coqui(folder)
    with pytest.raises(SpaceMismatchError, match="256 components"):
        import_coqui(folder, space="yourtts-512")
    tts = import_coqui(folder, space="ge2e-256")
    assert isinstance(tts, CoquiTTS)
    assert "somebody" not in tts.config.coqui
    voice = torch.nn.functional.normalize(torch.rand(256, generator=torch.Generator().manual_seed(1)), dim=0)
    state = torch.random.get_rng_state()
    said = tts.say(TEXT, voice, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(said, _theirs(model, voice[None], seed=7), rtol=0, atol=1e-6)
    assert not torch.equal(said, tts.say(TEXT, voice, seed=8)[: len(said)])
    assert len(tts.say(TEXT, voice, speed=2.0)) < len(said) < len(tts.say(TEXT, voice, speed=0.5))
    other = tts.say(TEXT, -voice, seed=7)
    assert len(other) != len(said) or not torch.allclose(other, said)  # the voice matters
    with pytest.raises(ConfigError, match="expected \\(256,\\) in ge2e-256"):
        tts.say(TEXT, torch.ones(512))
    with pytest.raises(TextError):
        tts.say("", voice)
    with pytest.raises(BundleError, match="no speaker encoder of its own"):
        tts.embed(np.zeros(16_000, np.float32))


def test_yourtts_hears_and_speaks_in_its_own_space(yourtts: tuple[Path, Any], tmp_path: Path) -> None:
    folder, (model, encoder) = yourtts
    tts = import_coqui(folder)
    assert isinstance(tts, CoquiTTS)
    assert (tts.config.input_space, tts.config.language, tts.hears) == ("yourtts-512", "en", True)
    assert import_coqui(folder, language="pt-br").config.language == "pt-br"
    with pytest.raises(BundleError, match="does not speak 'de'"):
        import_coqui(folder, language="de")
    waveform = sung_voice(3.0, 140.0, seed=0)
    heard = tts.embed(waveform)
    expected = encoder.compute_embedding(torch.from_numpy(waveform)[None])[0]
    torch.testing.assert_close(heard, torch.nn.functional.normalize(expected, dim=0), rtol=0, atol=1e-5)
    english = torch.tensor([1])  # by the model's own numbering
    torch.testing.assert_close(
        tts.say(TEXT, heard, seed=3), _theirs(model, heard[None], seed=3, language_ids=english), rtol=0, atol=1e-6
    )
    # through a bundle: a recording chooses the voice, and a face encoder of another space is refused
    with BundleWriter(tmp_path / "bundle", name="yourtts") as writer:
        writer.add("tts", tts.kind, tts, dtype="float32")
    journey = Face2Speech.from_pretrained(tmp_path / "bundle", device="cpu")
    assert torch.equal(journey.voice_embedding(waveform, sample_rate=16_000), tts.embed(_speech_of(waveform)))
    speech = journey.speak("The wind. The sun.", embedding=heard, seed=3)
    assert speech.sample_rate == 16_000
    assert np.isfinite(speech.waveform).all()
    pieces = [tts.say(piece, heard, seed=3) for piece in ("the wind.", "the sun.")]
    assert len(speech.waveform) == sum(map(len, pieces)) + int(0.22 * 16_000)
    with pytest.raises(SpaceMismatchError, match="face-encoder works in 'ge2e-256' but tts expects 'yourtts-512'"):
        _with_face_encoder(tmp_path / "mixed", tmp_path / "bundle", "ge2e-256")
    fitting = _with_face_encoder(tmp_path / "fits", tmp_path / "bundle", "yourtts-512")
    journey = Face2Speech.from_pretrained(fitting, device="cpu")
    speech = journey(drawn_face(256, seed=0), "The wind.", no_detect=True, pitch=2.0)
    assert speech.embedding.shape == (512,)
    assert float(speech.embedding.norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(speech.embedding.min()) < 0  # not GE2E's form


def _speech_of(waveform: np.ndarray) -> np.ndarray:
    from crossmodal.audio import load_speech

    return load_speech(waveform, sample_rate=16_000)


def _with_face_encoder(folder: Path, tts: Path, space: str) -> Path:
    dat = "models/dlib_face_recognition_resnet_model_v1.dat"
    torch.manual_seed(0)
    with BundleWriter(folder, name="both") as writer:
        writer.copy_module(Bundle.open(tts), "tts")
        writer.add_external("face-features", "face-dlib", "face_recognition_models", dat)
        encoder = build("face-encoder-head", {"output_space": space}, size="debug")
        writer.add("face-encoder", "face-encoder-head", encoder)
    return folder


def test_numbered_speakers_are_measured_and_the_nearest_speaks(tmp_path: Path) -> None:
    settings = debug_settings(
        256, use_d_vector_file=False, use_speaker_embedding=True, num_speakers=3, speaker_embedding_channels=256
    )  # fmt: skip
    names = {"p227": 2, "p225": 0, "p226": 1}
    ordered = sorted(names, key=names.__getitem__)
    model = _save(tmp_path / "vctk", {**settings, "speakers": ordered}, speaker_ids=names)

    class Ear:
        """Hears levels and lengths, so that the three random voices differ."""

        config = type("Config", (), {"output_space": "ge2e-256"})

        def embed_batch(self, waveforms: list[np.ndarray]) -> torch.Tensor:
            seeds = [len(w) * 1000 + int(1e6 * np.abs(w).mean()) for w in waveforms]
            rows = [torch.rand(256, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    tts = import_coqui(tmp_path / "vctk", encoder=Ear())
    assert tts.config.speakers == 3
    assert tts.voices.shape == (3, 256)
    for number in range(3):
        voice = torch.nn.functional.normalize(tts.voices[number], dim=0)
        assert int(tts.nearest(voice)) == number
        expected = _theirs(model, None, seed=0, speaker_ids=torch.tensor([number]))
        torch.testing.assert_close(tts.say(TEXT, voice), expected, rtol=0, atol=1e-6)
    with pytest.raises(BundleError, match="needs a speaker encoder"):
        import_coqui(tmp_path / "vctk")


def _tokens() -> str:
    """An XTTS vocabulary: letters, and the marks that coqui looks up by name."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import BPE

    marks = ["[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[fr]"]
    letters = list("abcdefghijklmnopqrstuvwxyz.,!?'")
    vocabulary = {token: number for number, token in enumerate(marks + letters)}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(mark) for mark in marks])
    return tokenizer.to_str()


def test_xtts_says_what_coqui_says(tmp_path: Path) -> None:
    """With a narrow GPT; coqui fixes the size of its other parts. The published weights were not at hand."""
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.models.xtts import Xtts, _legacy_safe_globals

    folder = tmp_path / "xtts"
    folder.mkdir()
    (folder / "vocab.json").write_text(_tokens())
    config = XttsConfig()
    config.from_dict(xtts_settings())
    torch.manual_seed(4)
    model = Xtts(config)
    model.tokenizer = type(model.tokenizer)(folder / "vocab.json")
    model.init_models()
    with _legacy_safe_globals():  # as published: a pickled configuration, its classes where they lived then
        torch.save({"config": config, "model": model.state_dict()}, folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    shutil.copytree(folder, tmp_path / "copy")  # coqui's loader writes the file anew
    model.load_checkpoint(config, checkpoint_dir=tmp_path / "copy", eval=True)
    tts = import_coqui(folder)
    assert isinstance(tts, XTTS)
    assert (tts.config.input_space, tts.config.language, tts.sample_rate) == (f"xtts-{32 * 64 + 512}", "en", 24_000)
    with pytest.raises(SpaceMismatchError, match="a space of its own"):
        import_coqui(folder, space="ge2e-256")
    waveform = sung_voice(2.0, 140.0, seed=0)
    voice = tts.embed(waveform)
    signal = torch.from_numpy(waveform)[None]
    latents = model.get_gpt_cond_latents(
        signal, 16_000, length=config.gpt_cond_len, chunk_length=config.gpt_cond_chunk_len
    )
    speaker = model.get_speaker_embedding(signal.clone(), 16_000)
    torch.testing.assert_close(voice, torch.cat([latents.flatten(), speaker.flatten()]), rtol=0, atol=1e-5)
    torch.manual_seed(5)
    expected = model.inference(
        TEXT, "en", latents, speaker, temperature=config.temperature, length_penalty=config.length_penalty,
        repetition_penalty=config.repetition_penalty, top_k=config.top_k, top_p=config.top_p,
    )["wav"]  # fmt: skip
    with BundleWriter(tmp_path / "part", name="xtts") as writer:
        writer.add("tts", tts.kind, tts, dtype="float32")
    loaded = Bundle.open(tmp_path / "part").load("tts")
    np.testing.assert_allclose(loaded.say(TEXT, voice, seed=5).numpy(), expected, rtol=0, atol=1e-5)


def test_xtts_without_perceiver_is_refused() -> None:
    settings = xtts_settings()
    settings["model_args"]["gpt_use_perceiver_resampler"] = False
    with pytest.raises(ConfigError, match="without perceiver"):
        XTTSConfig(coqui=json.dumps(settings))
    with pytest.raises(ConfigError, match="33280 components"):
        XTTSConfig(input_space="xtts-512")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_what_is_refused(vits: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def copy(name: str, **values: Any) -> Path:
        shutil.copytree(vits[0], tmp_path / name)
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        return tmp_path / name

    folder = copy("evil")
    torch.save({"model": {}, "config": _Evil()}, folder / "model.pth")
    with pytest.raises(BundleError, match="not unpickled.*save it again") as caught:
        import_coqui(folder, space="ge2e-256")
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(BundleError, match="kind 'tacotron2'"):
        import_coqui(copy("other", model="tacotron2"))
    with pytest.raises(BundleError, match="not coqui's own"):
        import_coqui(copy("code", characters={"characters_class": "os.path.join"}), space="ge2e-256")
    args = json.loads((vits[0] / "config.json").read_text())["model_args"]
    with pytest.raises(BundleError, match="one voice only"):
        import_coqui(copy("single", use_d_vector_file=False, model_args={**args, "use_d_vector_file": False}))
    with pytest.raises(BundleError, match="does not fit"):
        import_coqui(copy("sizes", model_args={**args, "hidden_channels": 32}), space="ge2e-256")
    (copy("short") / "model.pth").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(BundleError, match="cannot be read"):
        import_coqui(tmp_path / "short", space="ge2e-256")
    (copy("text") / "config.json").write_text("{")
    with pytest.raises(BundleError, match="no readable JSON"):
        import_coqui(tmp_path / "text")
    with pytest.raises(BundleError, match="no folder and no name of coqui's zoo"):
        import_coqui(tmp_path / "missing")
    with pytest.raises(BundleError, match="not in coqui's zoo"):
        import_coqui("tts_models/en/nobody/vits")


def test_zoo_terms_and_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from TTS.utils.manage import ModelManager

    monkeypatch.delenv("COQUI_TOS_AGREED", raising=False)
    monkeypatch.setenv("TTS_HOME", str(tmp_path))
    with pytest.raises(BundleError, match="terms of its own"):
        import_coqui("tts_models/multilingual/multi-dataset/xtts_v2")

    def offline(self: Any, name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(ModelManager, "download_model", offline)
    with pytest.raises(BundleError, match="cannot be had \\(no network\\)"):
        import_coqui("tts_models/multilingual/multi-dataset/your_tts")


def test_comments_and_checkpoints_of_bare_weights(tmp_path: Path) -> None:

    (tmp_path / "c.json").write_text('{"a": "http://x", // why\n "b": 1 /* two */}')
    assert read_json(tmp_path / "c.json") == {"a": "http://x", "b": 1}
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pth")
    assert torch.equal(read_checkpoint(tmp_path / "w.pth")["w"], torch.ones(2))
    torch.save([1, 2], tmp_path / "l.pth")
    with pytest.raises(BundleError, match="holds no weights"):
        read_checkpoint(tmp_path / "l.pth")


def test_command(vits: tuple[Path, Any], tmp_path: Path) -> None:
    from crossmodal.cli import models_import_coqui_tts

    app = typer.Typer()
    models_import_coqui_tts.register(app)
    app.callback()(lambda: None)
    arguments = ["coqui-tts", str(vits[0]), "-o", str(tmp_path / "part"), "--space", "ge2e-256", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["space"] == "ge2e-256"
    info = Bundle.open(tmp_path / "part").info.modules["tts"]
    assert (info.kind, info.input_space) == ("tts-coqui", "ge2e-256")
