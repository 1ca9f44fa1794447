"""The loss that asks whether speech sounds like the voice asked for: its terms, its listener, and what it trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from crossmodal.audio import log_mel, speaker_mel
from crossmodal.data import spoken_clips
from crossmodal.errors import BundleError, ConfigError
from crossmodal.models.speaker_encoder import SpeakerEncoder, raise_volume
from crossmodal.models.vocoder import HarmonicVocoder, VocoderConfig
from crossmodal.training.tasks.acoustic import AcousticTask, AcousticTaskConfig
from crossmodal.training.tasks.likeness import WINDOW, LikenessConfig, Listener, blend_voices, likeness_terms
from tests.debug_bundle import write_debug_bundle


def voices(count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.rand(count, 256, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_terms_against_a_loop() -> None:
    heard, wanted = voices(5), voices(5, 1)
    distance, softmax = likeness_terms(heard, wanted, 10.0)
    cosine = [[float(sum(a * b)) for b in wanted] for a in heard]
    assert float(distance) == pytest.approx(1 - sum(cosine[i][i] for i in range(5)) / 5, abs=1e-5)
    rows = [-math.log(math.exp(10 * row[i]) / sum(math.exp(10 * c) for c in row)) for i, row in enumerate(cosine)]
    assert float(softmax) == pytest.approx(sum(rows) / 5, rel=1e-4)


def test_blends_lie_between_two_voices() -> None:
    torch.manual_seed(0)
    given = voices(6)
    mixed = blend_voices(given)
    assert torch.allclose(mixed.norm(dim=-1), torch.ones(6), atol=1e-5)
    assert not torch.allclose(mixed, given, atol=0.05)
    cosine = mixed @ given.T
    for row in cosine:
        one, other = row.topk(2).indices
        assert float(row[one] + row[other]) > float(given[one] @ given[other]) + 1


def test_listener_hears_what_the_encoder_hears() -> None:
    """Through the vocoder with all its steps, and nothing but: the same wave, embedded by the encoder itself."""
    torch.manual_seed(0)
    vocoder, encoder = HarmonicVocoder(VocoderConfig.debug()).eval(), SpeakerEncoder.from_package()
    wave = 0.1 * torch.sin(torch.arange(WINDOW) * 2 * math.pi * 180 / 16_000).repeat(2, 1)
    mel = log_mel(wave).transpose(1, 2)[:, :128]
    f0 = torch.full(mel.shape[:2], 180.0)
    config = LikenessConfig(vocoder=Path(), start=Path(), projections=vocoder.config.projections)
    heard = Listener(config, vocoder, encoder)(mel, f0)
    with torch.no_grad():
        spoken = vocoder(mel.transpose(1, 2), f0)
    direct = encoder(speaker_mel(raise_volume(spoken))[:, :160])
    assert torch.allclose(heard, direct, atol=1e-5)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> AcousticTask:
    """A debug model whose speech is judged, on generated voices."""
    folder = tmp_path_factory.mktemp("likeness")
    spoken_clips.generate(folder)
    torch.manual_seed(0)
    bundle = write_debug_bundle(folder / "bundle")
    config: dict[str, Any] = {
        "features": folder / "features", "alignments": (folder / "alignments.jsonl",),
        "shares": {"generated": 1.0}, "crop_frames": 128,
    }  # fmt: skip
    task = AcousticTask(AcousticTaskConfig(**config, likeness=LikenessConfig(vocoder=bundle, start=bundle, weight=4.0)))
    from crossmodal.bundle import Bundle

    task.modules["acoustic"] = Bundle.open(bundle).load("acoustic").requires_grad_(True)
    return task


def test_training_brings_speech_nearer_to_the_voice(task: AcousticTask) -> None:
    torch.manual_seed(0)
    data = task.dataset("train")
    batch = task.collate([data[i] for i in range(3)])
    optimiser = torch.optim.Adam(task.model.parameters(), 3e-3)
    task.modules.train()
    cosines = []
    for step in range(25):
        torch.manual_seed(1)  # the same blends
        values = task.loss("main", batch, step)
        optimiser.zero_grad()
        values["likeness"].backward()
        optimiser.step()
        cosines.append((float(values["cosine"]), float(values["cosine_swapped"])))
    for before, after in zip(cosines[0], cosines[-1]):
        assert after > before + 0.01, cosines
    listener = task.frozen["likeness"].listener
    assert all(p.grad is None for p in listener.parameters())
    assert not {name for name, _ in task.modules.named_parameters()} & {name for name, _ in listener.named_parameters()}


def test_validation_is_not_judged(task: AcousticTask) -> None:
    data = task.dataset("train")
    task.modules.eval()
    assert "likeness" not in task.loss("main", task.collate([data[0], data[1]]), -1)


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="likeness"):
        LikenessConfig(vocoder=tmp_path, start=tmp_path, weight=-1.0)
    with pytest.raises(BundleError):
        from crossmodal.training.tasks.likeness import Likeness

        Likeness.load(LikenessConfig(vocoder=tmp_path, start=tmp_path))
