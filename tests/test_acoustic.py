"""The acoustic model, its losses, its task, and the alignment that feeds it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal.audio import CONFIG as AUDIO
from crossmodal.audio import log_mel, mel_filterbank
from crossmodal.data import alignment, pseudo_speakers, spoken_clips, starter_split
from crossmodal.data.spoken_clips import SpokenClips
from crossmodal.errors import ConfigError, DataError
from crossmodal.losses import acoustic as losses
from crossmodal.models.acoustic import AcousticConfig, AcousticModel, comb_table, frame_layout, speech_level
from crossmodal.text import encode
from crossmodal.training.teacher_forcing import predict_mels


@pytest.fixture(scope="module")
def model() -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(AcousticConfig.debug()).eval()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Features and alignments of generated voices."""
    folder = tmp_path_factory.mktemp("speech")
    spoken_clips.generate(folder)
    return folder / "features", folder / "alignments.jsonl"


def test_infer_has_one_frame_count_everywhere(model: AcousticModel) -> None:
    tokens, voice = encode("Good morning, my friend."), torch.rand(256)
    spoken = model.infer(tokens, voice)
    frames = int(spoken.durations.sum())
    assert spoken.mel.shape == (100, frames)
    assert spoken.f0.shape == (frames,)
    assert len(spoken.durations) == len(tokens)
    assert int(spoken.durations.min()) >= 1
    assert torch.equal(spoken.mel, model.infer(tokens, voice).mel)
    assert torch.isfinite(spoken.mel).all()


def test_speed_and_pitch(model: AcousticModel) -> None:
    tokens, voice = encode("A rather long sentence, so that rounding hardly matters here."), torch.rand(256)
    normal = model.infer(tokens, voice)
    fast, slow = model.infer(tokens, voice, speed=1.6), model.infer(tokens, voice, speed=0.5)
    assert slow.mel.shape[1] == pytest.approx(2 * normal.mel.shape[1], rel=0.05)
    assert fast.mel.shape[1] < normal.mel.shape[1]
    high = model.infer(tokens, voice, pitch=4.0)
    both = (high.f0 > 0) & (normal.f0 > 0)
    if both.any():
        ratio = (high.f0[both] / normal.f0[both]).median()
        assert float(12 * torch.log2(ratio)) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("options", [{"speed": 0.4}, {"speed": float("nan")}, {"pitch": 13.0}])
def test_infer_refuses(model: AcousticModel, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        model.infer(encode("yes"), torch.rand(256), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        model.infer(encode("yes"), torch.rand(128))


def test_variation_is_seeded(model: AcousticModel) -> None:
    tokens, voice = encode("Once more, with feeling, and then again."), torch.rand(256)
    one = model.infer(tokens, voice, variation=1.0, seed=1)
    assert torch.equal(one.mel, model.infer(tokens, voice, variation=1.0, seed=1).mel)
    other = model.infer(tokens, voice, variation=1.0, seed=2)
    assert one.mel.shape != other.mel.shape or not torch.equal(one.mel, other.mel)


def test_loudness_does_not_follow_the_voice(model: AcousticModel) -> None:
    tokens = encode("Loud or soft.")
    levels = []
    for seed in range(3):
        voice = torch.rand(256, generator=torch.Generator().manual_seed(seed))
        spoken = model.infer(tokens, voice)
        silent = torch.repeat_interleave((torch.tensor(tokens.phones) == 0).float(), spoken.durations)
        levels.append(float(speech_level(spoken.mel.T, silent)))
    assert np.ptp(levels) < 0.05


def test_calibrated_f0_follows_the_embedding() -> None:
    torch.manual_seed(1)
    model = AcousticModel(AcousticConfig.debug()).eval()
    with torch.no_grad():
        model.pitch_out[1].bias.copy_(torch.tensor([0.0, 9.0]))  # everything voiced
        model.f0_level.fill_(math.log(100.0))
        model.f0_weight[0] = math.log(2.0)
    low, high = torch.zeros(256), torch.zeros(256)
    low[1], high[0] = 1.0, 1.0
    tokens = encode("Every sound of it.")
    means = [float(f[f > 0].log().mean().exp()) for f in (model.infer(tokens, v).f0 for v in (low, high))]
    assert means == pytest.approx([100.0, 200.0], rel=1e-3)


def test_frame_layout_against_a_loop() -> None:
    durations = [3, 1, 2]
    token, position = frame_layout(durations)
    expected = [
        (n, (k + 0.5) / d, math.log1p(k) / 3, math.log1p(d - 1 - k) / 3)
        for n, d in enumerate(durations)
        for k in range(d)
    ]
    assert token.tolist() == [row[0] for row in expected]
    np.testing.assert_allclose(position, [row[1:] for row in expected], rtol=1e-6)


def test_comb_table_matches_a_real_pulse_train() -> None:
    grid, table = comb_table(48)
    f0 = 160.0
    time = np.arange(16_000) / 16_000
    tone = sum(np.cos(2 * np.pi * f0 * k * time) for k in range(1, 50))
    mel = log_mel(torch.tensor(tone, dtype=torch.float32))[:, 40].numpy()
    row = table[np.abs(grid - math.log(f0)).argmin()]
    low = slice(2, 30)  # where 50 ms tell harmonics apart
    smooth = np.convolve(np.pad(mel, 12, mode="edge"), np.hanning(27)[1:-1] / np.hanning(27).sum(), mode="valid")
    assert np.corrcoef((mel - smooth)[low], row[low])[0, 1] > 0.8
    centred = (np.arange(800) - 400) / 16_000
    for log_f0, row in zip(grid, table):  # cosine by cosine
        pulses = sum(
            np.cos(2 * np.pi * math.exp(log_f0) * k * centred) for k in range(1, int(8000 / math.exp(log_f0)) + 1)
        )
        spectrum = np.abs(np.fft.rfft(pulses * np.hanning(802)[1:-1], AUDIO.n_fft))
        mel = np.pad(np.log(mel_filterbank(AUDIO.n_fft, 100) @ spectrum + 1e-3), 12, mode="edge")
        smooth = np.convolve(mel, np.hanning(27)[1:-1] / np.hanning(27).sum(), mode="valid")
        assert np.allclose((mel[12:-12] - smooth).clip(-2, 1.5), row, atol=1e-6)


def test_vocabulary_must_fit() -> None:
    with pytest.raises(ConfigError, match="phones"):
        AcousticConfig(phones=("SIL", "A"))


def test_losses_against_loops() -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.standard_normal((2, 2, 5, 4))
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=float)
    total = [abs(predicted[b, f] - target[b, f]).mean() for b in range(2) for f in range(5) if mask[b, f]]
    assert float(losses.mel_l1(*map(torch.tensor, (predicted, target, mask)))) == pytest.approx(np.mean(total))
    time = [
        abs((predicted[b, f + 1] - predicted[b, f]) - (target[b, f + 1] - target[b, f])).mean()
        for b in range(2)
        for f in range(4)
        if mask[b, f] and mask[b, f + 1]
    ]
    band = [
        np.mean([abs(np.diff(predicted[b, f])[m] - np.diff(target[b, f])[m]) for m in range(3)])
        for b in range(2)
        for f in range(5)
        if mask[b, f]
    ]
    contrast = float(losses.mel_contrast(*map(torch.tensor, (predicted, target, mask))))
    assert contrast == pytest.approx(np.mean(time) + np.mean(band))
    f0 = np.array([[100.0, 0, 200, 300, 0], [0, 0, 0, 120, 140]])
    log_f0 = rng.standard_normal((2, 5)) + 5
    voiced = [abs(log_f0[b, f] - math.log(f0[b, f])) for b in range(2) for f in range(5) if mask[b, f] and f0[b, f]]
    assert float(losses.pitch_loss(*map(torch.tensor, (log_f0, f0, mask)))) == pytest.approx(np.mean(voiced))


def test_to_hops_keeps_time_and_every_phone() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        durations = rng.integers(0, 30, size=rng.integers(2, 40)).tolist()
        frames = max(len(durations), round(sum(durations) * 0.8))
        hops = alignment.to_hops(durations, frames)
        assert hops.sum() == frames
        assert hops.min() >= 1
    with pytest.raises(DataError):
        alignment.to_hops([3, 3, 3], 2)


def test_alignments_survive_an_interruption(tmp_path: Path, prepared: tuple[Path, Path]) -> None:
    lines = prepared[1].read_text()
    (tmp_path / "cut.jsonl").write_text(lines[:-20])
    whole, cut = alignment.read_alignments(prepared[1]), alignment.read_alignments(tmp_path / "cut.jsonl")
    assert len(cut) == len(whole) - 1
    assert next(iter(cut.values())).text == "see no one"


def test_split_never_parts_a_person_or_sentence() -> None:
    sides = {starter_split.split_of("arctic", voice, "arctic_a0007") for voice in ("bdl", "slt")}
    sides.add(starter_split.split_of("kathleen", "kathleen", "arctic_a0007"))
    assert len(sides) == 1
    assert starter_split.split_of("an4", "mdcs", "x") == starter_split.split_of("an4", "mdcs2", "y")
    for speaker in map(str, range(200)):
        copy = starter_split.split_of("librispeech", f"{speaker}@0.85", f"{speaker}-1@0.85")
        assert copy == starter_split.split_of("librispeech", speaker, f"{speaker}-1")
    assert {starter_split.split_of("librispeech", str(n), "u") for n in range(200)} == {"train", "validation", "test"}
    with pytest.raises(DataError):
        starter_split.split_of("vctk", "p225", "p225_001")


def test_scaling_a_voice_scales_its_pitch() -> None:
    time = np.arange(16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    scaled = pseudo_speakers.scale_voice(tone, 1.18)
    assert len(scaled) == pytest.approx(16_000 / 1.18, abs=2)
    peak = np.abs(np.fft.rfft(scaled)).argmax() * 16_000 / len(scaled)
    assert peak == pytest.approx(236, abs=2)
    assert pseudo_speakers.factor_of("a/b/c@1.18") == 1.18
    assert pseudo_speakers.factor_of("a/b/c") == 1.0


def test_spoken_clips_are_level_and_consistent(prepared: tuple[Path, Path]) -> None:
    clips = SpokenClips(prepared[0], None, [prepared[1]])
    for clip in clips:
        mel = clips.mel(clip)
        assert mel.shape == (clip.frames, 100)
        assert clip.durations.sum() == clip.frames
        assert len(clip.tokens) == len(clip.durations) == len(clip.energy(mel))
        assert clip.tokens.phones[0] == clip.tokens.phones[-1] == 0
        silent = torch.tensor(np.repeat(np.array(clip.tokens.phones) == 0, clip.durations)).float()
        assert float(speech_level(torch.tensor(mel.astype(np.float32)), silent)) == pytest.approx(-3.0, abs=0.02)
    assert clips.of_split("train")
    assert clips.of_split("test")


SMALL = {
    "acoustic": {"encoder_channels": 16, "encoder_blocks": 1, "decoder_channels": 16, "decoder_blocks": 1,
                 "pitch_channels": 8, "pitch_blocks": 1, "kernel": 3, "expansion": 1, "speaker_hidden": 8,
                 "speaker_channels": 8},
    "acoustic-coqui": {"channels": 16, "encoder_blocks": 2, "decoder_blocks": 2, "predictor_channels": 8},
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_task_learns_a_few_clips_and_predicts(prepared: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    from crossmodal.training.tasks.acoustic import AcousticTask, AcousticTaskConfig

    torch.manual_seed(0)
    config = AcousticTaskConfig(
        features=prepared[0], alignments=(prepared[1],), shares={"generated": 1.0}, crop_frames=40, epoch_clips=8,
        kind=kind, model=SMALL[kind],
    )  # fmt: skip
    task = AcousticTask(config)
    data = task.dataset("train")
    batch = task.collate([data[i] for i in range(4)])
    optimiser = torch.optim.Adam(task.parameters("main"), 1e-2)
    first = last = 0.0
    for step in range(40):
        losses_now = task.loss("main", batch, step)
        optimiser.zero_grad()
        losses_now["loss"].backward()
        optimiser.step()
        last = float(losses_now["loss"].detach())
        first = first or last
    assert last < 0.7 * first
    assert predict_mels(task, task.model.eval(), tmp_path, per_corpus=2) == 2
    stored = {str(path.relative_to(tmp_path))[:-4]: np.load(path) for path in tmp_path.rglob("*.npy")}
    frames = {entry.id: entry.frames for entry in task.clips.entries}
    assert len(stored) == 2
    assert all(mel.shape == (100, frames[name]) for name, mel in stored.items())
    found = task.calibrate()
    assert set(found) == {"spread", "range", "voices"}


@pytest.mark.data
def test_forced_alignment_finds_the_words(data_root: Path) -> None:
    pytest.importorskip("pocketsphinx")
    from crossmodal import audio

    wave = audio.load(data_root / "cmu_arctic/cmu_us_bdl_arctic/wav/arctic_a0001.flac")
    words = "author of the danger trail philip steels et cetera".split()
    found = alignment.Aligner().align(wave, words)
    assert found.text.split() == words
    assert found.frames == pytest.approx(len(wave) / 160, abs=5)
    with pytest.raises(DataError):
        alignment.Aligner().align(wave, [])
    with pytest.raises(DataError, match="pronunciation"):
        alignment.Aligner().align(wave, ["zzyzxq"])
