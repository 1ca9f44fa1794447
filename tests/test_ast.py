"""The AST voice encoder against ``transformers``: its extractor, its forward pass, import, and what is fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.cli import models_import_ast
from crossmodal.errors import BundleError, ConfigError, CrossmodalError, SpaceMismatchError
from crossmodal.models.voice_encoder import ASTVoiceEncoder, ASTVoiceEncoderConfig
from crossmodal.training.tasks.voice_encoder import _pretrained
from tests.debug_bundle import write_debug_bundle

transformers = pytest.importorskip("transformers")
CONFIG = ASTVoiceEncoderConfig(output_space="dlib-128")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AST as the published ones are laid out: a classifier on AudioSet, with its feature extractor."""
    path = tmp_path_factory.mktemp("hub") / "ast"
    torch.manual_seed(5)
    config = transformers.ASTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, max_length=300,
        num_mel_bins=64, frequency_stride=12, time_stride=12, num_labels=7,
    )  # fmt: skip
    transformers.ASTForAudioClassification(config).save_pretrained(path)
    transformers.ASTFeatureExtractor(max_length=300, num_mel_bins=64, mean=-3.1, std=2.7).save_pretrained(path)
    return path


def _noise(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(4)
    return (0.2 * rng.standard_normal(round(16_000 * seconds))).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.3, 2.0, 4.1])  # shorter and longer than the positions cover
def test_input_and_output_are_those_of_transformers(folder: Path, seconds: float) -> None:
    encoder = ASTVoiceEncoder.from_transformer(folder, CONFIG)
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    expected = extractor(_noise(seconds), sampling_rate=16_000, return_tensors="pt")["input_values"]  # (1, 300, 64)
    ours = encoder.features(torch.from_numpy(_noise(seconds))[None], seconds=None)  # (1, F, 64)
    frames = min(ours.shape[1], 300)
    torch.testing.assert_close(ours[:, :frames], expected[:, :frames], rtol=0, atol=1e-4)
    model = transformers.ASTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        pooled = model(expected).pooler_output
        by_hand = encoder.head[1](encoder.head[0](pooled))
        torch.testing.assert_close(encoder(ours), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("tuned", "layers"), [(-1, {0, 1, 2}), (0, set()), (1, {2}), (2, {1, 2}), (3, {0, 1, 2})])
def test_exactly_the_tuned_part_gets_gradients(folder: Path, tuned: int, layers: set[int]) -> None:
    import dataclasses

    encoder = ASTVoiceEncoder.from_transformer(folder, dataclasses.replace(CONFIG, tuned_layers=tuned)).train()
    torch.manual_seed(0)
    encoder(torch.randn(2, 200, 64)).square().mean().backward()
    with_gradient = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {name for name, _ in encoder.named_parameters() if name.startswith("head.")}
    for name, _ in encoder.named_parameters():
        inside = [index for index in layers if f"layers.{index}." in name]
        if inside or (tuned and name.startswith("transformer.layernorm")) or tuned == -1:
            expected.add(name)
    # a key's bias shifts all scores of a query alike, which softmax cancels: its gradient is rounding noise
    idle = {name for name in expected if name.endswith("k_proj.bias")}
    assert with_gradient - idle == expected - idle
    assert not {name for name, p in encoder.named_parameters() if p.requires_grad} - expected


def test_extractor_that_does_not_normalise(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "raw")
    extractor = transformers.ASTFeatureExtractor(max_length=300, num_mel_bins=64, do_normalize=False)
    extractor.save_pretrained(tmp_path / "raw")
    encoder = ASTVoiceEncoder.from_transformer(tmp_path / "raw", CONFIG)
    expected = extractor(_noise(1.0), sampling_rate=16_000, return_tensors="pt")["input_values"]
    ours = encoder.features(torch.from_numpy(_noise(1.0))[None], seconds=None)
    torch.testing.assert_close(ours, expected[:, : ours.shape[1]], rtol=0, atol=1e-4)


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    def broken(name: str, **values: object) -> Path:
        shutil.copytree(folder, tmp_path / name)
        file = tmp_path / name / "preprocessor_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        return tmp_path / name

    with pytest.raises(BundleError, match="sampling_rate 8000, 16000 is needed"):
        ASTVoiceEncoder.from_transformer(broken("rate", sampling_rate=8000), CONFIG)
    with pytest.raises(BundleError, match="num_mel_bins 128, 64 is needed"):
        ASTVoiceEncoder.from_transformer(broken("mels", num_mel_bins=128), CONFIG)
    with pytest.raises(BundleError, match="not positive"):
        ASTVoiceEncoder.from_transformer(broken("std", std=0), CONFIG)
    with pytest.raises(BundleError, match="no feature extractor"):
        ASTVoiceEncoder.from_transformer(broken("text", mean="loud"), CONFIG)
    with pytest.raises(ConfigError, match="tuned_layers"):
        ASTVoiceEncoderConfig(tuned_layers=13)


def test_hub_that_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[object] = []

    def offline(name: str, **options: object) -> str:
        asked.append((name, options["allow_patterns"]))
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BundleError, match="cannot be had from the hub") as caught:
        ASTVoiceEncoder.from_transformer("MIT/ast-finetuned-audioset-10-10-0.4593")
    assert "\n" not in str(caught.value)
    assert asked == [
        ("MIT/ast-finetuned-audioset-10-10-0.4593", ["config.json", "preprocessor_config.json", "model.safetensors"])
    ]


def test_import_writes_a_part_that_training_starts_from(folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    models_import_ast.register(app)
    app.callback()(lambda: None)
    result = CliRunner().invoke(
        app, ["ast", str(folder), "-o", str(tmp_path / "part"), "--space", "dlib-128", "--tuned-layers", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["config"]["tuned_layers"] == 1
    bundle = Bundle.open(tmp_path / "part")
    assert bundle.info.modules["voice-encoder"].output_space == "dlib-128"
    part = bundle.load("voice-encoder")
    theirs = transformers.ASTModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(part.transformer.state_dict()[name], value) for name, value in theirs.items())  # exact
    start = _pretrained(str(tmp_path / "part"), CONFIG)
    assert start.config.tuned_layers == -1
    assert all(torch.equal(value, part.state_dict()[name]) for name, value in start.state_dict().items())
    with pytest.raises(SpaceMismatchError, match="dlib-128"):
        _pretrained(str(tmp_path / "part"), ASTVoiceEncoderConfig())
    with pytest.raises(BundleError, match="voice-encoder-conv"):
        _pretrained(str(write_debug_bundle(tmp_path / "conv")), CONFIG)
    failed = CliRunner().invoke(app, ["ast", str(tmp_path / "nothing"), "-o", str(tmp_path / "x")])
    assert isinstance(failed.exception, CrossmodalError)
    assert not (tmp_path / "x").exists()
