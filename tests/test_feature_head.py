"""The feature head, the cues of a voice, pseudo-pairs, and the task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from crossmodal.data import generated_people
from crossmodal.data.prepared_voices import PreparedVoices, change_voice
from crossmodal.data.pseudo_pairs import gender_axis, match, matching_scores, voice_scale
from crossmodal.data.voice_cues import voice_cues
from crossmodal.errors import ConfigError, DataError
from crossmodal.models.feature_head import FeatureHead, FeatureHeadConfig, mixture_log_prob
from crossmodal.training.tasks.feature_head import FeatureHeadTask, FeatureHeadTaskConfig


def head(seed: int = 0) -> FeatureHead:
    torch.manual_seed(seed)
    network = FeatureHead(FeatureHeadConfig.debug()).eval()
    torch.nn.init.normal_(network.line.weight, std=0.3)
    torch.nn.init.normal_(network.weights.weight, std=0.3)
    network.axes.copy_(torch.randn(128, 128) / 10)
    network.feature_mean.copy_(torch.randn(128))
    return network


def voices(count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.rand(count, 256, generator=generator), dim=-1)


def test_mixture_density_is_that_of_torch() -> None:
    logits, means, scales, values = (
        torch.randn(4, 3),
        torch.randn(4, 3, 5),
        torch.rand(4, 3, 5) + 0.2,
        torch.randn(4, 5),
    )
    theirs = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, scales), 1)).log_prob(values)
    assert torch.allclose(mixture_log_prob(logits, means, scales, values), theirs, atol=1e-4)


def test_density_counts_the_change_of_axes() -> None:
    network, embedding = head(), voices(2)
    feature = network.mode(embedding) + 0.01
    before = network.log_prob(embedding, feature)
    z = network.whiten(feature)
    network.axes.mul_(2.0)
    after = network.log_prob(embedding, network.colour(z))
    assert torch.allclose(after, before - 128 * np.log(2.0), atol=1e-2)


def test_whitening_is_undone() -> None:
    network = head()
    feature = torch.randn(3, 128)
    assert torch.allclose(network.colour(network.whiten(feature)), feature, atol=1e-3)


def test_samples_differ_repeat_and_begin_with_the_mode() -> None:
    network, embedding = head(), voices(2)
    one = network.sample(embedding, 4, torch.Generator().manual_seed(3))
    again = network.sample(embedding, 4, torch.Generator().manual_seed(3))
    other = network.sample(embedding, 4, torch.Generator().manual_seed(4))
    assert one.shape == (2, 4, 128)
    assert torch.equal(one, again)
    assert not torch.allclose(one[:, 1:], other[:, 1:])
    assert torch.allclose(one[:, 0], network.mode(embedding))
    distances = torch.cdist(one, one) + 1e9 * torch.eye(4)
    plain = network.colour(network.mixture(network.cue(embedding))[1])
    assert float(distances.min()) > 0.3 * float(torch.pdist(plain[0]).mean())


def test_only_the_cue_passes() -> None:
    network = head()
    embedding = voices(1)
    blind = torch.randn(1, 256)
    weight = network.linear.weight.detach()
    network.bend = None
    blind = blind - (blind @ weight.T) / weight.square().sum() * weight  # leaves the cue alone
    assert torch.allclose(network.mode(embedding), network.mode(embedding + blind), atol=1e-4)


def test_cue_stays_in_its_range() -> None:
    network = head()
    network.cue_range.copy_(torch.tensor([[-1.0], [2.0]]))
    cue = network.cue(100 * torch.randn(50, 256))
    assert float(cue.min()) >= -1.0
    assert float(cue.max()) <= 2.0


def test_the_curve_to_faces_is_that_of_numpy() -> None:
    network = head()
    x = torch.tensor([-3.0, *sorted(torch.linspace(-2, 2, network.config.knots - 2).tolist()), 3.0])
    network.knots.copy_(torch.stack([x, x**3 / 9], dim=1))
    embedding = 3 * torch.randn(40, 256)
    heard = network.heard(embedding).detach().numpy()
    assert np.allclose(network.cue(embedding).detach().numpy(), np.interp(heard, x, x**3 / 9), atol=1e-4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(1, 128\).*ge2e-256"):
        head().mode(torch.zeros(1, 128))
    with pytest.raises(ConfigError, match="0 faces"):
        head().sample(voices(1), 0)
    with pytest.raises(ConfigError, match="2 knots"):
        FeatureHeadConfig(knots=1)
    with pytest.raises(ConfigError, match="temperature"):
        FeatureHeadConfig(temperature=0.0)


# ------------------------------------------------------------------------------------------ cues


def vowel(f0: float, spacing: float, seconds: float = 1.0) -> np.ndarray:
    """A pulse train through a uniform tube: formants at spacing × (1/2, 3/2, 5/2, 7/2)."""
    rate = 16_000
    signal = np.zeros(int(seconds * rate))
    signal[(np.arange(int(seconds * f0)) * rate / f0).astype(int)] = 1.0
    for i in range(4):
        hertz, width = spacing * (i + 0.5), 80.0
        r = np.exp(-np.pi * width / rate)
        signal = lfilter([1.0], [1.0, -2 * r * np.cos(2 * np.pi * hertz / rate), r * r], signal)
    return (0.5 * signal / np.abs(signal).max()).astype(np.float32)


@pytest.mark.parametrize(("f0", "spacing"), [(110.0, 1000.0), (200.0, 1150.0)])
def test_cues_of_a_synthetic_vowel(f0: float, spacing: float) -> None:
    sound = vowel(f0, spacing)
    cues = voice_cues(sound, np.full(len(sound) // 200 + 1, f0))
    assert cues.pitch == pytest.approx(f0)
    assert cues.spacing == pytest.approx(spacing, rel=0.05)


def test_no_voice_no_cues() -> None:
    cues = voice_cues(np.zeros(16_000, dtype=np.float32), np.zeros(81))
    assert np.isnan(cues.pitch)
    assert np.isnan(cues.spacing)


def test_shifting_moves_both_cues() -> None:
    rng = np.random.default_rng(0)
    sound = vowel(120.0, 1000.0)
    higher = change_voice(sound, "shifted", 1.2, rng)
    assert len(higher) == pytest.approx(len(sound) / 1.2, rel=0.01)
    cues = voice_cues(higher, np.full(len(higher) // 200 + 1, 144.0))
    assert cues.spacing == pytest.approx(1200.0, rel=0.06)


def test_changes_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal(48_000).astype(np.float32)
    assert len(change_voice(sound, "short", 1.0, rng)) == 24_000
    narrow = np.abs(np.fft.rfft(change_voice(sound, "phone", 1.0, rng)))
    assert narrow[len(narrow) * 6 // 10 :].mean() < 0.05 * narrow[: len(narrow) // 3].mean()
    noise = change_voice(sound, "noise", 1.0, rng) - sound
    assert 10 * np.log10((sound**2).mean() / (noise**2).mean()) == pytest.approx(10.0, abs=0.2)


# ------------------------------------------------------------------------------------------ pairs


def test_axis_puts_the_genders_at_one() -> None:
    rng = np.random.default_rng(0)
    male = np.arange(200) % 2 == 1
    values = rng.standard_normal((200, 20))
    values[male, 3] += 4
    axis = gender_axis(values, male)
    assert axis.score(values[male]).mean() == pytest.approx(1.0)
    assert axis.score(values[~male]).mean() == pytest.approx(-1.0)
    assert np.abs(axis.weight).argmax() == 3


def test_matching_keeps_ranks_within_gender() -> None:
    rng = np.random.default_rng(0)
    male = np.arange(400) % 2 == 1
    voice = rng.normal(np.where(male, 1, -1), 0.3)
    face = rng.normal(np.where(male, 1, -1), 0.1)
    knots = matching_scores(voice, male, face, male)
    assert (np.diff(knots, axis=0) >= 0).all()
    matched = match(knots, np.sort(voice))
    assert (np.diff(matched) >= -1e-9).all()
    for kind in (False, True):
        assert np.median(match(knots, voice[male == kind])) == pytest.approx(np.median(face[male == kind]), abs=0.05)


def test_deeper_voices_score_higher() -> None:
    heard = generated_people.voices(30)
    scale = voice_scale(heard)
    shifted = heard.pick(np.flatnonzero(heard.change == "shifted"))
    clean = heard.pick(np.flatnonzero(heard.change == "clean"))
    score = scale.score(clean)
    assert score[clean.gender == "male"].min() > score[clean.gender == "female"].max()
    assert np.corrcoef(scale.score(shifted), -np.log(shifted.pitch))[0, 1] > 0.8


def test_prepared_voices_come_back(tmp_path: Path) -> None:
    heard = generated_people.voices(4)
    heard.save(tmp_path / "voices.npz")
    assert np.array_equal(PreparedVoices.load(tmp_path / "voices.npz").embedding, heard.embedding)
    with pytest.raises(DataError, match="no prepared voices"):
        PreparedVoices.load(tmp_path / "other.npz")


# ------------------------------------------------------------------------------------------ task


@pytest.fixture
def task(tmp_path: Path) -> FeatureHeadTask:
    generated_people.people(24).save(tmp_path / "prepared")
    generated_people.voices(60).save(tmp_path / "voices.npz")
    torch.manual_seed(0)
    return FeatureHeadTask(
        FeatureHeadTaskConfig(
            voices=tmp_path / "voices.npz",
            faces=tmp_path / "prepared",
            held_out_faces=("000", "001"),
            model=FeatureHeadConfig(hidden=(8,), components=4),
            faces_between=300,
            axes=10,
        )
    )


def test_speakers_are_split_by_identity(task: FeatureHeadTask) -> None:
    sets = [set(v.speaker) for v in task.voices.values()]
    assert sum(map(len, sets)) == 60
    assert len(set.union(*sets)) == 60
    assert len(task.faces) == 22 * 4 + 300


def test_pairs_fit(task: FeatureHeadTask) -> None:
    torch.manual_seed(0)
    data = task.dataset("train")
    examples = [data[i % len(data)] for i in range(200)]
    face = task.face_axis.score(np.stack([e["feature"].numpy() for e in examples]))
    target = np.array([float(e["target"]) for e in examples])
    assert np.corrcoef(face, target)[0, 1] > 0.9
    again = [data[0]["feature"] for _ in range(10)]
    assert len({tuple(f.tolist()) for f in again}) > 3  # one voice, many faces


def test_head_learns_gender_and_nothing_of_identity(task: FeatureHeadTask) -> None:
    batch = task.collate([task.dataset("train")[i] for i in range(64)])
    optimiser = torch.optim.Adam(task.parameters("main"), lr=1e-3)
    first = float(task.loss("main", batch, 0)["loss"])
    for step in range(40):
        out = task.loss("main", batch, step)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
    assert float(out["loss"]) < first
    unheard = task.voices["test"]
    clean = unheard.pick(np.flatnonzero(unheard.change == "clean"))
    with torch.no_grad():
        score = task.face_axis.score(task.head.eval().mode(torch.from_numpy(clean.embedding)).numpy())
    assert ((score > 0) == (clean.gender == "male")).mean() > 0.9


def test_a_lowered_voice_is_heard_lowered(task: FeatureHeadTask) -> None:
    """Before training already: hearing is linear in the voice, however steep the curve to the faces is."""
    voices = task.voices["test"]
    with torch.no_grad():
        place = task.head.eval().cue(torch.from_numpy(voices.embedding))[:, 0].numpy()
    right = []
    for clip in set(voices.clip):
        rows = [i for i in np.flatnonzero(voices.clip == clip) if voices.change[i] in ("clean", "shifted")]
        right += [place[j] > place[i] for i in rows for j in rows if voices.factor[i] > 1.05 * voices.factor[j]]
    assert np.mean(right) > 0.95


def test_order_is_learned_from_versions_of_a_clip(task: FeatureHeadTask) -> None:
    data = task.dataset("train")
    example = data[0]
    voices = task.voices["train"]
    row = int(np.argmin(np.abs(voices.embedding - example["other_embedding"].numpy()).sum(1)))
    assert voices.clip[row] == voices.clip[0]
    assert voices.change[row] in ("clean", "shifted")
    batch = task.collate([data[i] for i in range(32)])
    right = task.loss("main", batch, 0)["order"]
    batch["other_heard"] = 2 * batch["heard"] - batch["other_heard"]  # every difference the wrong way round
    assert float(task.loss("main", batch, 0)["order"]) > float(right)
