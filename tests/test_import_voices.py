"""Importing speaker encoders: coqui's against coqui-tts, GE2E checkpoints, and spaces that do not mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.cli.app import app
from crossmodal.errors import AudioError, BundleError, ConfigError, SpaceMismatchError
from crossmodal.models.coqui_speaker import CoquiSpeakerEncoder, CoquiSpeakerEncoderConfig
from crossmodal.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tests.debug_bundle import write_debug_bundle

AUDIO = {"fft_size": 512, "win_length": 400, "hop_length": 160, "preemphasis": 0.97, "sample_rate": 16_000}
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"model_name": "lstm", "input_dim": 20, "proj_dim": 24, "lstm_dim": 16, "num_lstm_layers": 2},
    "resnet": {"model_name": "resnet", "input_dim": 64, "proj_dim": 512, "log_input": True},
}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


def published(folder: Path, name: str) -> Any:
    """``model_se.pth`` and ``config_se.json`` as coqui's trainer saves them; returns coqui's own network."""
    from TTS.encoder.models.lstm import LSTMSpeakerEncoder
    from TTS.encoder.models.resnet import ResNetSpeakerEncoder

    params = {**MODELS[name], "use_torch_spec": True}
    audio = {**AUDIO, "num_mels": params["input_dim"]}
    torch.manual_seed(0)
    sizes = {key: value for key, value in params.items() if key != "model_name"}
    network: Any = (LSTMSpeakerEncoder if name == "lstm" else ResNetSpeakerEncoder)(**sizes, audio_config=audio)
    state = {"model": network.state_dict(), "optimizer": {}, "step": 7, "loss": np.float64(0.1), "date": "today"}
    torch.save(state, folder / "model_se.pth")
    text = json.dumps({"model": "speaker_encoder", "audio": audio, "model_params": params})
    (folder / "config_se.json").write_text("// as older versions wrote it\n" + text)
    return network.eval()


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(round(16_000 * seconds)).astype(np.float32) * 0.1


@pytest.mark.parametrize(("name", "space"), [("lstm", "coqui-24"), ("resnet", "yourtts-512")])
def test_coqui_encoders_hear_as_coqui_does(tmp_path: Path, name: str, space: str) -> None:
    theirs = published(tmp_path, name)
    result = run("import", "speaker-encoder", "coqui", tmp_path / "model_se.pth", "-o", tmp_path / "part")
    assert result.exit_code == 0, result.output
    part = Bundle.open(tmp_path / "part")
    entry = part.info.modules["speaker-encoder"]
    assert (entry.kind, entry.output_space) == ("speaker-encoder-coqui", space)
    assert "CC BY-NC-ND" in part.info.licence
    ours: Any = part.load("speaker-encoder")
    waves = [noise(1.0), noise(3.7)]
    embedded = ours.embed_batch(waves)
    for wave, found in zip(waves, embedded, strict=True):
        expected = theirs.compute_embedding(torch.from_numpy(wave)[None])[0]
        torch.testing.assert_close(found, expected / expected.norm(), rtol=0, atol=1e-5)
    assert ours.embed_batch([]).shape == (0, embedded.shape[1])
    with pytest.raises(AudioError, match="mix to mono"):
        ours.embed(np.zeros((2, 9)))
    with pytest.raises(AudioError, match="NaN"):
        ours.embed(np.full(9, np.nan))


def test_spaces_do_not_mix(tmp_path: Path) -> None:
    published(tmp_path, "lstm")
    part = tmp_path / "part"
    weights = tmp_path / "model_se.pth"
    assert run("import", "speaker-encoder", "coqui", weights, "-o", part, "--space", "mine-24").exit_code == 0
    base = write_debug_bundle(tmp_path / "base")
    refused = run("compose", part, "--base", base, "-o", tmp_path / "mixed")
    assert refused.exit_code == 1
    assert "'mine-24'" in refused.output
    assert "'ge2e-256'" in refused.output
    assert not (tmp_path / "mixed").exists()
    wrong = run("import", "speaker-encoder", "coqui", weights, "-o", tmp_path / "x", "--space", "mine-25")
    assert "24 components" in wrong.output


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    published(tmp_path, "lstm")
    with pytest.raises(BundleError, match="cannot be read|no readable JSON"):
        CoquiSpeakerEncoder.from_files(tmp_path / "model_se.pth", tmp_path / "absent.json")
    other = json.loads((tmp_path / "config_se.json").read_text().split("\n", 1)[1])
    other["model_params"]["lstm_dim"] = 17
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(BundleError, match="another size of 'layers"):
        CoquiSpeakerEncoder.from_files(tmp_path / "model_se.pth", tmp_path / "other.json")
    other["model_params"]["use_torch_spec"] = False
    (tmp_path / "mels.json").write_text(json.dumps(other))
    with pytest.raises(ConfigError, match="use_torch_spec"):
        CoquiSpeakerEncoder.from_files(tmp_path / "model_se.pth", tmp_path / "mels.json")
    (tmp_path / "tts.json").write_text("{}")
    with pytest.raises(BundleError, match="no model_params"):
        CoquiSpeakerEncoder.from_files(tmp_path / "model_se.pth", tmp_path / "tts.json")
    with pytest.raises(ConfigError, match="settings of a speaker encoder"):
        CoquiSpeakerEncoderConfig(settings="{}")
    debug = CoquiSpeakerEncoder(CoquiSpeakerEncoderConfig.debug())
    torch.testing.assert_close(debug(torch.randn(2, 16_000)).norm(dim=1), torch.ones(2))


# GE2E ---------------------------------------------------------------------------------------------------------------


def test_resemblyzer_as_a_part_of_its_own(tmp_path: Path) -> None:
    assert run("import", "speaker-encoder", "resemblyzer", "-o", tmp_path / "part").exit_code == 0
    part = Bundle.open(tmp_path / "part")
    assert part.info.licence == "Apache-2.0"
    wave = noise(2.0)
    expected = SpeakerEncoder.from_package().embed(wave)
    found = part.load("speaker-encoder").embed(wave)  # type: ignore[operator]
    assert torch.equal(found, expected)
    same = SpeakerEncoder.from_file(SpeakerEncoder.package_file())
    assert same.config.output_space == "ge2e-256"


def test_other_ge2e_weights_need_a_space_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = SpeakerEncoder(SpeakerEncoderConfig(hidden_size=12, num_layers=2, embedding_size=20))
    state = {**other.state_dict(), "similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}}, tmp_path / "encoder.pt")
    file, part = tmp_path / "encoder.pt", tmp_path / "part"
    refused = run("import", "speaker-encoder", "resemblyzer", file, "-o", part)
    assert refused.exit_code == 1
    assert "--space mine-20" in refused.output
    assert run("import", "speaker-encoder", "resemblyzer", file, "-o", part, "--space", "mine-20").exit_code == 0
    loaded: Any = Bundle.open(part).load("speaker-encoder")
    assert (loaded.config.hidden_size, loaded.config.num_layers, loaded.config.embedding_size) == (12, 2, 20)
    torch.testing.assert_close(loaded.embed(noise(1.0)), other.eval().embed(noise(1.0)), rtol=0, atol=1e-6)
    with pytest.raises(SpaceMismatchError, match="20 components"):
        SpeakerEncoder.from_file(file, space="mine-21")
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(BundleError, match="no GE2E speaker encoder"):
        SpeakerEncoder.from_file(tmp_path / "x.pt", space="mine-20")
