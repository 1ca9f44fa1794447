"""GE2E and Speech2Face losses against brute-force loops and their formulas."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crossmodal.errors import ConfigError, DataError
from crossmodal.losses.ge2e import (
    GE2ELoss,
    SupervisedGE2ELoss,
    cosine_to_centroids,
    ge2e_contrast,
    ge2e_softmax,
    speaker_centroids,
)
from crossmodal.losses.speech2face import Speech2FaceLoss, distillation, l1, normalised_l2


def embeddings(speakers: int = 5, utterances: int = 3, size: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(speakers, utterances, size, generator=generator, dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def brute_force(e: Tensor, w: float, b: float) -> list[list[list[float]]]:
    """S_ji,k by the formula, one number at a time, in plain Python."""
    speakers, utterances, size = e.shape
    values = e.tolist()
    table: list[list[list[float]]] = []
    for j in range(speakers):
        table.append([])
        for i in range(utterances):
            row = []
            for k in range(speakers):
                members = [values[k][m] for m in range(utterances) if not (k == j and m == i)]
                centroid = [sum(v[d] for v in members) / len(members) for d in range(size)]
                row.append(w * cosine(values[j][i], centroid) + b)
            table[-1].append(row)
    return table


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("speakers", "utterances"), [(2, 2), (5, 3), (4, 6)])
def test_similarity_matches_brute_force(speakers: int, utterances: int) -> None:
    e = embeddings(speakers, utterances)
    expected = torch.tensor(brute_force(e, 10.0, -5.0), dtype=torch.float64)
    torch.testing.assert_close(10 * cosine_to_centroids(e) - 5, expected, rtol=0, atol=1e-12)


def test_softmax_form_matches_equation_6() -> None:
    e = embeddings()
    table = brute_force(e, 10.0, -5.0)
    expected = [-row[j] + math.log(sum(map(math.exp, row))) for j, rows in enumerate(table) for row in rows]
    loss = ge2e_softmax(10 * cosine_to_centroids(e) - 5)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    module = GE2ELoss("softmax")
    assert module(e).item() == pytest.approx(loss.item(), abs=1e-5)


def test_contrast_form_matches_equation_7() -> None:
    e = embeddings()
    table = brute_force(e, 10.0, -5.0)
    expected = [
        1 - sigmoid(row[j]) + max(sigmoid(s) for k, s in enumerate(row) if k != j)
        for j, rows in enumerate(table)
        for row in rows
    ]
    loss = ge2e_contrast(10 * cosine_to_centroids(e) - 5)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert GE2ELoss("contrast")(e).item() == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("form", ["softmax", "contrast"])
def test_ge2e_gradients(form: str) -> None:
    e = embeddings(3, 3, 4).requires_grad_()
    similar = ge2e_softmax if form == "softmax" else ge2e_contrast
    assert torch.autograd.gradcheck(lambda x: similar(10 * cosine_to_centroids(x) - 5), (e,))
    module = GE2ELoss(form)
    module(e.float()).backward()
    assert all(p.grad is not None and p.grad.abs() > 0 for p in module.parameters())


def test_weight_stays_positive_and_starts_as_published() -> None:
    module = GE2ELoss()
    assert module.weight.item() == pytest.approx(10, rel=1e-6)
    assert module.bias.item() == -5
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    for step in range(5):
        optimiser.zero_grad()
        module(embeddings(seed=step)).backward()
        optimiser.step()
        assert module.weight.item() > 0


def test_training_embeddings_separates_speakers() -> None:
    free = nn.Parameter(embeddings(4, 3, 6).float())
    module = GE2ELoss()
    optimiser = torch.optim.Adam([free, *module.parameters()], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = module(free)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.01
    assert (cosine_to_centroids(free.detach()).argmax(-1) == torch.arange(4)[:, None]).all()


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 1, 4), (6, 4)])
def test_ge2e_refuses_too_few(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least 2"):
        GE2ELoss()(torch.randn(shape))


def test_ge2e_refuses_unknown_form_and_weight() -> None:
    with pytest.raises(ConfigError, match="use softmax or contrast"):
        GE2ELoss("triplet")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="use batch or all"):
        SupervisedGE2ELoss(among="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="positive"):
        GE2ELoss(weight=0.0)


def test_centroids_are_means_over_all_utterances() -> None:
    e, speakers = torch.randn(7, 4), torch.tensor([2, 0, 1, 0, 2, 2, 0])
    expected = torch.stack([torch.stack([e[u] for u in range(7) if speakers[u] == k]).mean(0) for k in range(3)])
    torch.testing.assert_close(speaker_centroids(e, speakers), expected)
    with pytest.raises(DataError, match="speaker 3 of 4"):
        speaker_centroids(e, speakers, 4)
    with pytest.raises(DataError, match="SGE2E"):
        speaker_centroids(e, speakers, 2)


@pytest.mark.parametrize("among", ["batch", "all"])
def test_supervised_loss_matches_formula(among: str) -> None:
    centroids, faces = torch.rand(6, 5), torch.rand(4, 5)
    speakers = torch.tensor([5, 1, 1, 3])
    present = sorted({5, 1, 3}) if among == "batch" else range(6)
    expected = 0.0
    for face, speaker in zip(faces.tolist(), speakers.tolist()):
        s = {k: 10 * cosine(face, centroids[k].tolist()) - 5 for k in present}
        expected += -s[speaker] + math.log(sum(math.exp(v) for v in s.values()))
    module = SupervisedGE2ELoss(among=among)
    assert module(faces, speakers, centroids).item() == pytest.approx(expected / 4, abs=1e-5)


def test_supervised_centroids_stay_fixed() -> None:
    faces, centroids = torch.rand(3, 5, requires_grad=True), torch.rand(3, 5, requires_grad=True)
    SupervisedGE2ELoss()(faces, torch.arange(3), centroids).backward()
    assert centroids.grad is None
    assert faces.grad is not None
    assert faces.grad.abs().sum() > 0


# Two processes against one -------------------------------------------------------------------------------------------


def _linear() -> nn.Linear:
    layer = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(24.0).sin().reshape(4, 6))
    return layer


def _gradients(model: nn.Module, loss: nn.Module, x: Tensor, speakers: Tensor) -> list[Tensor]:
    centroids = torch.arange(24.0).cos().reshape(6, 4)
    value = loss(model(x)) if isinstance(loss, GE2ELoss) else loss(model(x).flatten(0, 1), speakers, centroids)
    value.backward()
    return [p.grad for p in [*model.parameters(), *loss.parameters()] if p.grad is not None]


def _make_loss(name: str) -> nn.Module:
    return SupervisedGE2ELoss() if name == "supervised" else GE2ELoss(name)


FORMS = ("softmax", "contrast", "supervised")


def _process(rank: int, port: int, x: Tensor, speakers: Tensor, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        half = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
        for form in FORMS:
            model, loss = _linear(), _make_loss(form)
            gradients = _gradients(model, loss, x[half], speakers.view(len(x), -1)[half].flatten())
            for gradient in gradients:  # what DistributedDataParallel does
                torch.distributed.all_reduce(gradient)
                gradient /= 2
            torch.save(gradients, Path(folder) / f"{form}-{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_match_one(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(3))  # 4 speakers, 3 utterances
    speakers = torch.tensor([0, 2, 3, 5]).repeat_interleave(3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (port, x, speakers, str(tmp_path)), nprocs=2)
    for form in FORMS:
        expected = _gradients(_linear(), _make_loss(form), x, speakers)
        assert len(expected) == 3  # the layer, w and b
        for rank in range(2):
            found = torch.load(tmp_path / f"{form}-{rank}.pt", weights_only=True)
            for ours, one in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, one, rtol=1e-4, atol=1e-6)


# Speech2Face ---------------------------------------------------------------------------------------------------------


def features(batch: int, size: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, size, generator=generator), torch.randn(batch, size, generator=generator)


def layers(size: int = 12) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(1)
    return nn.Linear(size, 7).requires_grad_(False), nn.Linear(size, 5).requires_grad_(False)


def by_hand(predicted: Tensor, target: Tensor, decoder: nn.Linear, face: nn.Linear) -> float:
    total = 0.0
    for s, f in zip(predicted, target):
        total += sum(abs(a - b) for a, b in zip(decoder(f).tolist(), decoder(s).tolist()))
        length_f, length_s = math.sqrt(sum(f.square().tolist())), math.sqrt(sum(s.square().tolist()))
        total += 0.025 * sum((a / length_f - b / length_s) ** 2 for a, b in zip(f.tolist(), s.tolist()))
        exp_a, exp_b = ([math.exp(v / 2) for v in face(x).tolist()] for x in (f, s))
        p_a, p_b = [v / sum(exp_a) for v in exp_a], [v / sum(exp_b) for v in exp_b]
        total += 200 * -sum(a * math.log(b) for a, b in zip(p_a, p_b))
    return total / len(predicted)


def test_full_loss_matches_formula() -> None:
    predicted, target = features(6)
    decoder, face = layers()
    terms = Speech2FaceLoss(decoder, face)(predicted, target)
    assert terms["loss"].item() == pytest.approx(by_hand(predicted, target, decoder, face), rel=1e-5)
    weighted = terms["decoder_l1"] + 0.025 * terms["feature_l2"] + 200 * terms["distillation"]
    torch.testing.assert_close(terms["loss"], weighted)


@pytest.mark.parametrize("kind", ["full", "l1", "normalised-l2"])
@pytest.mark.parametrize("copies", [2, 8, 64])
def test_loss_and_its_balance_do_not_depend_on_batch_size(kind: str, copies: int) -> None:
    predicted, target = features(1)
    loss = Speech2FaceLoss(*layers(), kind=kind)
    one, many = loss(predicted, target), loss(predicted.repeat(copies, 1), target.repeat(copies, 1))
    for term in one:
        torch.testing.assert_close(one[term], many[term], rtol=1e-5, atol=1e-6)


def test_batch_is_the_mean_of_its_examples() -> None:
    predicted, target = features(5)
    loss = Speech2FaceLoss(*layers())
    singles = [loss(p[None], t[None])["loss"] for p, t in zip(predicted, target)]
    torch.testing.assert_close(loss(predicted, target)["loss"], torch.stack(singles).mean(), rtol=1e-5, atol=1e-5)


def test_ablations_match_formula() -> None:
    predicted, target = features(4)
    assert l1(predicted, target).tolist() == pytest.approx(
        [sum(abs(a - b) for a, b in zip(p, t)) for p, t in zip(predicted.tolist(), target.tolist())], rel=1e-5
    )
    cosines = [cosine(p, t) for p, t in zip(predicted.tolist(), target.tolist())]
    assert normalised_l2(predicted, target).tolist() == pytest.approx([2 - 2 * c for c in cosines], rel=1e-4)
    torch.testing.assert_close(Speech2FaceLoss(kind="l1")(predicted, target)["loss"], l1(predicted, target).mean())


def test_loss_is_smallest_at_the_target() -> None:
    predicted, target = features(4)
    loss = Speech2FaceLoss(*layers())
    at_target = loss(target, target)
    assert at_target["decoder_l1"] == 0
    assert at_target["feature_l2"] == 0
    assert at_target["loss"] < loss(predicted, target)["loss"]
    entropy = torch.distributions.Categorical(logits=layers()[1](target) / 2).entropy()
    torch.testing.assert_close(distillation(*[layers()[1](target)] * 2), entropy)


def test_only_the_prediction_learns_and_layers_are_not_saved() -> None:
    predicted, target = features(4)
    decoder, face = layers()
    loss = Speech2FaceLoss(decoder, face)
    predicted.requires_grad_()
    loss(predicted, target)["loss"].backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum() > 0
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_loss_refuses_bad_settings() -> None:
    with pytest.raises(ConfigError, match="use full"):
        Speech2FaceLoss(kind="cosine")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature"):
        Speech2FaceLoss(temperature=0)
