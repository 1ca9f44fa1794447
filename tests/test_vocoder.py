"""The vocoder, its task, its prepared data and its evaluation, on generated voices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from crossmodal.audio import log_mel, pitch
from crossmodal.data.manifest import Row
from crossmodal.data.speech_features import SpeechFeatures, prepare_features, starter_rows
from crossmodal.errors import ConfigError, DataError
from crossmodal.evaluation.vocoder import (
    evaluate_vocoder,
    figures,
    interval,
    invert_filterbank,
    speed,
    table,
)
from crossmodal.models import build
from crossmodal.models.discriminators import DiscriminatorConfig
from crossmodal.models.vocoder import HarmonicVocoder, VocoderConfig, continuous_pitch, pulse_train, with_magnitude
from crossmodal.training.tasks.vocoder import MARGIN, CropDataset, VocoderTask, VocoderTaskConfig, blur

RATE = 16_000


def voice(f0: float, seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    """Harmonics of a slowly gliding F0 through two formants, with a pause and a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    contour = f0 * (1 + 0.1 * np.sin(2 * np.pi * 1.5 * time))
    phase = 2 * np.pi * np.cumsum(contour) / RATE
    wave = np.zeros_like(time)
    for k in range(1, int(7000 / f0)):
        hertz = k * f0
        level = 1 / (1 + ((hertz - 500) / 200) ** 2) + 0.5 / (1 + ((hertz - 1500) / 300) ** 2) + 0.01
        wave += level * np.sin(k * phase + k * k)
    wave *= np.where((time > 0.7) & (time < 0.9), 0.0, 1.0)
    wave = 0.2 * wave / np.abs(wave).max() + 0.001 * rng.standard_normal(len(wave))
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> SpeechFeatures:
    """Twelve generated speakers filed as LibriSpeech readers, so that the split's rule applies."""
    folder = tmp_path_factory.mktemp("voices")
    return prepare_features(_rows(folder, 12), folder / "features", embed=False)


def _rows(folder: Path, count: int) -> list[Row]:
    rows = []
    for i in range(count):
        path = folder / f"{i}-1-0000.wav"
        soundfile.write(path, voice(100 + 12 * i, seed=i), RATE)
        rows.append(Row(id=f"librispeech/{i}/{i}-1-0000", corpus="librispeech", speaker=str(i), audio=path))
    return rows


# ------------------------------------------------------------------------------------------------- network


def test_analysis_is_the_shared_stft_and_synthesis_its_inverse() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug())
    wave = torch.from_numpy(voice(150))[None, : 200 * 60]
    blocks = torch.nn.functional.pad(wave, (400, 200)).view(1, 63, 200)
    spectrum = vocoder.analyse(blocks)  # (1, 60, 513)
    reference = torch.stft(
        wave, 1024, 200, 800, torch.hann_window(800), center=True, pad_mode="constant", return_complex=True
    )
    torch.testing.assert_close(spectrum.abs(), reference[..., :60].abs().transpose(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vocoder.synthesise(spectrum)[:, 2:-1].flatten(1), wave, atol=1e-5, rtol=1e-4)


def test_projections_are_the_admm_iteration() -> None:
    """The same as the published three-variable ADMM written with torch.stft and torch.istft, away from the edges."""
    torch.manual_seed(0)
    vocoder = HarmonicVocoder(VocoderConfig(channels=16, blocks=1, kernel=3, relaxation=0.75))
    rho = 3.0  # β = ρ / (1 + ρ)
    wave = torch.from_numpy(voice(150, 2.0))
    window = torch.hann_window(800)

    def consistent(spectrum: torch.Tensor) -> torch.Tensor:
        x = torch.istft(spectrum, 1024, 200, 800, window, length=len(wave))
        return torch.stft(x, 1024, 200, 800, window, return_complex=True, pad_mode="constant")

    def impose(spectrum: torch.Tensor) -> torch.Tensor:
        return spectrum / spectrum.abs().clamp_min(1e-12) * magnitude

    magnitude = torch.stft(wave, 1024, 200, 800, window, return_complex=True, pad_mode="constant").abs()  # (513, 161)
    start = torch.polar(magnitude, torch.rand_like(magnitude) * 6.28)
    # torch.stft centres the window in the FFT frame, the vocoder puts it at its beginning
    shift = torch.exp(2j * torch.pi * torch.arange(513) * 112 / 1024)
    mine = vocoder.project((start * shift[:, None]).T[None], magnitude.T[None].contiguous(), 5)[0]
    x, z, u = start, start, torch.zeros_like(start)
    for _ in range(5):
        x = impose(z - u)
        z = (rho * consistent(x + u) + x + u) / (1 + rho)
        u = u + x - z
    reference = torch.istft(impose(z - u), 1024, 200, 800, window, length=len(wave))
    middle = slice(8000, 24000)
    error = (mine[middle] - reference[middle]).norm() / reference[middle].norm()
    assert error < 0.02


def test_projections_make_the_spectrum_consistent() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval().requires_grad_(False)
    mel = log_mel(torch.from_numpy(voice(150, 2.0))[None])
    f0 = torch.full((1, mel.shape[2]), 150.0)
    spectrum, magnitude = vocoder.initial_spectrum(mel, f0)
    gaps = []
    for steps in (0, 2, 8):
        wave = vocoder.project(spectrum, magnitude, steps)
        blocks = torch.nn.functional.pad(wave, (400, 200)).view(1, -1, 200)
        gaps.append(float((vocoder.analyse(blocks).abs() - magnitude).norm() / magnitude.norm()))
    assert gaps[2] < gaps[1] < gaps[0]


def test_pulse_train_is_the_sum_of_its_harmonics() -> None:
    f0 = torch.tensor([[100.0, 110.0, 130.0, 130.0, 127.0]])
    got = pulse_train(f0, 200, RATE)[0].numpy()
    contour = np.interp(np.arange(1000) / 200, np.arange(5), f0[0].numpy())
    phase = 2 * np.pi * np.cumsum(contour) / RATE
    count = np.floor(0.49 * RATE / contour)
    expected = np.zeros(1000)
    for k in range(1, 100):
        expected += np.where(k <= count, np.cos(k * phase), 0.0)
    clear = np.abs(0.49 * RATE / contour - np.round(0.49 * RATE / contour)) > 1e-3  # rounding decides elsewhere
    np.testing.assert_allclose(got[clear], (expected / np.sqrt(count))[clear], atol=5e-3)
    assert np.mean(got**2) == pytest.approx(0.5, rel=0.1)


def test_continuous_pitch_interpolates_like_numpy() -> None:
    f0 = np.array([0, 0, 100, 0, 0, 0, 140, 120, 0, 0], dtype=np.float32)
    voiced = f0 > 0
    expected = np.interp(np.arange(10), np.flatnonzero(voiced), f0[voiced])
    both = continuous_pitch(torch.from_numpy(np.stack([f0, np.zeros(10, np.float32)])))
    np.testing.assert_allclose(both[0], expected, rtol=1e-5)
    assert both[1].unique().tolist() == [120.0]


def test_mel_inversion_gives_the_mel_back() -> None:
    from crossmodal.audio import mel_filterbank

    vocoder = HarmonicVocoder(VocoderConfig.debug())
    mel = log_mel(torch.from_numpy(voice(120))[None])
    basis = torch.from_numpy(mel_filterbank(1024, 100)).float()
    magnitude = vocoder.invert_mel(mel)
    again = torch.log((magnitude @ basis.T).clamp_min(1e-5)).transpose(1, 2)
    assert float((again - mel).abs().mean()) < 0.05
    assert (magnitude >= 0).all()


def test_forward_has_the_promised_shape_and_is_deterministic_in_eval() -> None:
    torch.manual_seed(0)
    vocoder = build("vocoder", size="debug")
    mel, f0 = torch.randn(2, 100, 21) - 4, torch.tensor([[120.0], [0.0]]).expand(2, 21)
    vocoder.eval()
    with torch.inference_mode():
        one, two = vocoder(mel, f0), vocoder(mel, f0)
    assert one.shape == (2, 21 * 200)
    assert torch.equal(one, two)
    vocoder.train()
    assert not torch.equal(vocoder(mel, f0), vocoder(mel, f0))


def test_a_batch_does_not_change_its_members_pulses_and_one_frame_works() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval()
    with torch.inference_mode():
        assert vocoder(torch.zeros(1, 100, 1), torch.zeros(1, 1)).shape == (1, 200)
    a, b = torch.full((1, 30), 100.0), torch.full((1, 30), 200.0)
    together = pulse_train(torch.cat([a, b]), 200, RATE)
    torch.testing.assert_close(together[1:], pulse_train(b, 200, RATE))


@pytest.mark.parametrize("f0", [90.0, 150.0, 260.0])
def test_output_follows_the_pitch_it_is_given(f0: float) -> None:
    natural = voice(f0, 2.0)
    contour = torch.from_numpy(pitch(natural))[None]
    vocoder = HarmonicVocoder(VocoderConfig(channels=16, blocks=1, kernel=3, projections=4)).eval()
    with torch.inference_mode():
        wave = vocoder(log_mel(torch.from_numpy(natural)[None]), contour)[0, : len(natural)].numpy()
    heard = pitch(wave)
    both = (heard > 0) & (contour[0].numpy() > 0)
    assert both.mean() > 0.5
    assert np.median(np.abs(heard[both] / contour[0].numpy()[both] - 1)) < 0.02


def test_a_minute_is_synthesised_whole() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval()
    with torch.inference_mode():
        wave = vocoder(torch.full((1, 100, 4800), -5.0), torch.full((1, 4800), 200.0))
    assert wave.shape == (1, 60 * RATE)
    assert torch.isfinite(wave).all()


def test_silence_stays_silent() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval()
    with torch.inference_mode():
        wave = vocoder(torch.full((1, 100, 80), np.log(1e-5)), torch.zeros(1, 80))
    assert wave.abs().max() < 1e-3


def test_recorded_noise_is_rough_and_an_average_of_it_smooth() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug())
    generator = torch.Generator().manual_seed(0)
    mels = log_mel(torch.randn(40, RATE, generator=generator) * 0.05)
    assert vocoder.smoothness(mels[:2]).mean() < 0.05
    assert vocoder.smoothness(mels.mean(0, keepdim=True)).mean() > 0.9


def test_a_smooth_mel_of_noise_sounds_like_noise() -> None:
    """Level and spread of the magnitudes are those of noise, not those of a lattice of tones at the frame rate."""
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval()
    generator = torch.Generator().manual_seed(0)
    natural = torch.randn(40, RATE, generator=generator) * 0.05
    mel = log_mel(natural).mean(0, keepdim=True)
    with torch.inference_mode():
        wave = vocoder(mel, torch.zeros(1, mel.shape[2]))
    spectra = [
        torch.stft(x, 400, 100, window=torch.hann_window(400), return_complex=True).abs() for x in (wave[0], natural[0])
    ]
    inner = [s[10:-10, 10:-10] for s in spectra]
    spread = [float(s.std() / s.mean()) for s in inner]
    assert spread[0] == pytest.approx(spread[1], rel=0.15)  # Rayleigh: 0.52
    assert float(inner[0].square().mean() / inner[1].square().mean()) == pytest.approx(1.0, abs=0.3)
    # energy does not pulse with the hop
    envelope = wave[0, 1600:14400].square().view(-1, 200).mean(0)
    assert float(envelope.std() / envelope.mean()) < 0.3


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    vocoder = HarmonicVocoder(VocoderConfig.debug())
    wave = vocoder(torch.randn(1, 100, 12) - 4, torch.full((1, 12), 130.0))
    wave.square().sum().backward()
    for name, parameter in vocoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_bf16_and_compile_agree_with_eager() -> None:
    torch.manual_seed(0)
    vocoder = HarmonicVocoder(VocoderConfig.debug()).eval()
    mel, f0 = log_mel(torch.from_numpy(voice(140))[None]), torch.full((1, 121), 140.0)
    with torch.inference_mode():
        eager = vocoder(mel, f0)
        with torch.autocast("cpu", torch.bfloat16):
            low = vocoder(mel, f0)
        compiled = torch.compile(vocoder, backend="aot_eager")(mel, f0)
    assert low.dtype == torch.float32
    assert (low - eager).norm() / eager.norm() < 0.2
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-3)


def test_bad_shapes_and_settings_are_refused() -> None:
    vocoder = HarmonicVocoder(VocoderConfig.debug())
    with pytest.raises(ValueError, match=r"expected mel \(B, 100, F\)"):
        vocoder(torch.zeros(1, 80, 10), torch.zeros(1, 10))
    with pytest.raises(ValueError, match="f0"):
        vocoder(torch.zeros(1, 100, 10), torch.zeros(1, 9))
    for wrong in (
        {"kernel": 4},
        {"blocks": 0},
        {"comb_bins": 600},
        {"projections": -1},
        {"relaxation": 0.0},
        {"harmonic_share": 0.0},
    ):
        with pytest.raises(ConfigError):
            VocoderConfig(**wrong)


def test_with_magnitude_keeps_phase() -> None:
    spectrum = torch.randn(3, 4, dtype=torch.complex64)
    got = with_magnitude(spectrum, torch.full((3, 4), 2.0))
    torch.testing.assert_close(got.abs(), torch.full((3, 4), 2.0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.angle(), spectrum.angle())


# ---------------------------------------------------------------------------------------------------- task


def _task(features: SpeechFeatures, **changes: object) -> VocoderTask:
    return VocoderTask(
        VocoderTaskConfig(
            features=features.folder, crop_frames=24, model=VocoderConfig.debug(),
            discriminator=DiscriminatorConfig.debug(), **changes,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_task_overfits_ten_crops(features: SpeechFeatures) -> None:
    torch.manual_seed(0)
    task = _task(features, smoothing=0.0, gain_db=0.0)
    torch.nn.init.normal_(task.vocoder.head.weight, std=0.5)  # an untrained vocoder is too good to show learning
    data = task.dataset("train")
    batch = task.collate([data[i % len(data)] for i in range(10)])
    optimiser = torch.optim.AdamW(task.parameters("generator"), 1e-2)
    losses = []
    for step in range(25):
        loss = task.loss("generator", batch, step)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


def test_phases_follow_the_config_and_adversarial_steps_move_both_sides(features: SpeechFeatures) -> None:
    assert _task(features).phases == ("generator",)
    assert "discriminator" not in _task(features).modules
    task = _task(features, adversarial=True)
    assert task.phases == ("discriminator", "generator")
    data = task.dataset("train")
    batch = task.collate([data[0], data[1]])
    for phase in task.phases:
        task.modules.zero_grad()
        values = task.loss(phase, batch, 0)
        values["loss"].backward()
        assert all(p.grad is not None for p in task.parameters(phase))
        if phase == "discriminator":
            assert all(p.grad is None for p in task.parameters("generator"))
    assert {"adversarial", "matching"} <= set(values)
    exported: list[str] = []
    task.export(Path("."), lambda name, kind, module: exported.append(kind))
    assert exported == ["vocoder"]


def test_crops_carry_the_mel_of_the_whole_recording(features: SpeechFeatures) -> None:
    task = _task(features)
    crop = CropDataset(features, [2], 24)[0]
    start = int(crop["id"].split("+")[1])
    batch = task.collate([crop])
    mel, target = task.prepare(batch, augment=False)
    whole = torch.from_numpy(features.waveform(2))
    if start >= MARGIN and start + 24 + MARGIN < features[2].frames:
        torch.testing.assert_close(mel[0], log_mel(whole[None])[0, :, start : start + 24], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(target[0], whole[start * 200 : (start + 24) * 200])
    np.testing.assert_array_equal(crop["f0"], features.pitch(2)[start : start + 24])


def test_clips_shorter_than_a_crop_are_padded_and_predicted_mels_are_used(
    features: SpeechFeatures, tmp_path: Path
) -> None:
    clip = features[0]
    (tmp_path / clip.id).parent.mkdir(parents=True)
    np.save(tmp_path / f"{clip.id}.npy", np.full((100, clip.frames), -3.0, dtype=np.float16))
    task = _task(features, predicted=tmp_path, predicted_share=1.0, smoothing=0.0, gain_db=0.0)
    with_mel, without = CropDataset(features, [0, 1], 24, predicted=tmp_path, fixed=True)
    mel, _ = task.prepare(task.collate([with_mel, without]), augment=True)
    assert mel[0].unique().tolist() == [-3.0]
    assert mel[1].unique().numel() > 100
    long = CropDataset(features, [0], 200, fixed=True)[0]
    assert long["waveform"].shape == ((200 + 2 * MARGIN) * 200,)
    assert long["f0"].shape == (200,)


def test_corpus_shares_are_checked_and_blur_smooths(features: SpeechFeatures) -> None:
    with pytest.raises(ConfigError, match="kathleen"):
        _task(features, corpus_share={"kathleen": 0.5}).dataset("train")
    torch.manual_seed(0)
    mel = torch.randn(3, 100, 20)
    assert (blur(mel).var(dim=(1, 2)) < 0.8 * mel.var(dim=(1, 2))).all()
    torch.testing.assert_close(blur(torch.ones(1, 100, 20)), torch.ones(1, 100, 20))


# ---------------------------------------------------------------------------------------------------- data


def test_features_hold_waveform_and_pitch_of_every_clip(features: SpeechFeatures) -> None:
    assert len(features) == 12
    for i in (0, 5, 11):
        natural = voice(100 + 12 * i, seed=i)
        np.testing.assert_allclose(features.waveform(i), natural, atol=1 / 16000)
        np.testing.assert_allclose(features.waveform(i, 300, 50), natural[300:350], atol=1 / 16000)
        assert len(features.pitch(i)) == features[i].frames == len(natural) // 200 + 1
        heard = features.pitch(i)[features.pitch(i) > 0]
        assert np.median(heard) == pytest.approx(100 + 12 * i, rel=0.12)
    assert features.position("librispeech/3/3-1-0000") == 3
    with pytest.raises(DataError, match="no utterance called"):
        features.position("nobody")
    with pytest.raises(DataError, match="no embedding"):
        features.embedding(0)


def test_preparation_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 4)
    (tmp_path / "broken.wav").write_bytes(b"not a sound")
    rows.insert(1, Row(id="an4/x/broken", corpus="an4", speaker="x", audio=tmp_path / "broken.wav"))
    prepare_features(rows[:3], tmp_path / "a", embed=False)
    with open(tmp_path / "a" / "samples.s16", "ab") as file:
        file.write(b"half a clip")  # as a killed run leaves it
    with open(tmp_path / "a" / "index.jsonl", "a") as file:
        file.write('{"id": "cut of')
    assert not SpeechFeatures(tmp_path / "a").complete
    again = prepare_features(rows, tmp_path / "a", embed=True)
    assert again.complete
    once = prepare_features(rows, tmp_path / "b", embed=True)
    assert [clip.id for clip in again] == [clip.id for clip in once] == [row.id for i, row in enumerate(rows) if i != 1]
    for i in range(4):
        np.testing.assert_array_equal(again.waveform(i), once.waveform(i))
        np.testing.assert_array_equal(again.pitch(i), once.pitch(i))
        np.testing.assert_allclose(again.embedding(i), once.embedding(i), atol=1e-5)
        assert np.linalg.norm(again.embedding(i)) == pytest.approx(1.0, abs=1e-4)
    skipped = [json.loads(line) for line in (tmp_path / "a" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in skipped] == ["an4/x/broken"]


def test_two_rows_of_one_name_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 1)
    with pytest.raises(DataError, match="two utterances"):
        prepare_features(rows * 2, tmp_path / "x", embed=False)
    with pytest.raises(DataError, match="no prepared speech features"):
        SpeechFeatures(tmp_path / "nothing")
    with pytest.raises(DataError, match="no such folder"):
        prepare_features(starter_rows(tmp_path / "elsewhere"), tmp_path / "y")
    assert not (tmp_path / "y").exists()


# ---------------------------------------------------------------------------------------------- evaluation


def test_evaluation_scores_ours_and_griffin_lim(features: SpeechFeatures) -> None:
    pytest.importorskip("pesq")
    vocoder = HarmonicVocoder(VocoderConfig(channels=16, blocks=1, kernel=3, projections=8))
    scores = evaluate_vocoder(vocoder, features, [3, 8], baselines=["griffin-lim"], max_seconds=1.5)
    assert [s.system for s in scores] == ["vocoder", "griffin-lim"]
    for score in scores:
        summary = score.summary()
        assert summary["mel_error"]["n"] == 2
        assert summary["mel_error"]["mean"] < 1.0
        assert summary["f0_correlation"]["mean"] > 0.8
        assert summary["real_time_factor"] > 0
    assert "| griffin-lim |" in table(scores)
    found = {f.name: f for f in figures(scores)}
    difference = np.mean(scores[0].pesq) - np.mean(scores[1].pesq)
    assert found["vocoder: PESQ-WB above griffin-lim, same clips"].value == pytest.approx(difference)
    assert found["vocoder: PESQ-WB"].reference == pytest.approx(np.mean(scores[1].pesq))
    assert found["vocoder: log-mel error"].n == 2
    assert all(0 < factor < 10 for factor in speed({"ours": vocoder}, seconds=(0.5, 1.0), repeats=1)["ours"])
    with pytest.raises(DataError, match="no baseline"):
        evaluate_vocoder(vocoder, features, [0], baselines=["magic"])


def test_interval_covers_the_mean_and_skips_nan() -> None:
    got = interval([1.0, 2.0, 3.0, float("nan")])
    assert got["mean"] == 2.0
    assert got["n"] == 3
    assert 1.0 <= got["low"] < 2.0 < got["high"] <= 3.0
    assert interval([])["n"] == 0


def test_baseline_inversion_is_as_good_as_scipy_nnls() -> None:
    from scipy.optimize import nnls

    from crossmodal.audio import mel_filterbank

    basis = mel_filterbank(1024, 100)
    mel = np.exp(log_mel(torch.from_numpy(voice(120)))[..., 30:33].reshape(100, 3).numpy())
    mine = invert_filterbank(torch.from_numpy(mel), steps=200).numpy()
    for i in range(3):
        _, residual = nnls(basis, mel[:, i])
        assert np.linalg.norm(basis @ mine[:, i] - mel[:, i]) < residual + 0.02 * np.linalg.norm(mel[:, i])
