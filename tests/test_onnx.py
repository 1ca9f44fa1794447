"""Networks in ONNX: the exportable forms against the originals, the graphs against PyTorch, bundles, the runtime."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.cli.app import app
from crossmodal.errors import BundleError, DependencyError, OutputError
from crossmodal.models import build
from crossmodal.models.exportable import Plain, exportable, solve_spline
from crossmodal.models.exportable_speech import Exportable, ExportableVocoder, _continuous_pitch
from crossmodal.models.thin_plate import spline_coefficients
from crossmodal.models.vocoder import continuous_pitch
from crossmodal.onnx_export import check_graph, export_bundle, export_graph, graphs_of
from tests.debug_bundle import write_debug_bundle

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
KINDS = {
    "speaker-encoder": ("speaker-encoder", {}),
    "feature-head": ("feature-head", {}),
    "voice-encoder-conv": ("voice-encoder", {}),
    "voice-encoder-conv attentive": ("voice-encoder", {"pooling": "attentive"}),
    "voice-encoder-ast": ("voice-encoder", {}),
    "voice-encoder-ast attentive": ("voice-encoder", {"pooling": "attentive"}),
    "face-dlib": ("face-features", {}),
    "face-vggface": ("face-features", {}),
    "face-facenet": ("face-features", {}),
    "face-decoder": ("face-decoder", {}),
    "face-decoder conv": ("face-decoder", {"texture": "conv"}),
    "face-encoder-head": ("face-encoder", {}),
    "face-encoder-vgg19": ("face-encoder", {}),
    "acoustic": ("acoustic", {}),
    "vocoder": ("vocoder", {}),
}

_FILLED = ("face_basis", "hair_basis", "shape_basis", "outline_basis", "style_hair", "style_face", "follow",
           "tone_weight", "tone_of_face", "f0_weight")  # fmt: skip


def _made(case: str) -> dict[str, Any]:
    """The graphs of a debug network whose buffers are filled, too."""
    torch.manual_seed(3)
    role, overlay = KINDS[case]
    network = build(case.split()[0], overlay, size="debug").eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, value in network.named_buffers():  # empty bases and statistics would hide mistakes
            if name.endswith(_FILLED):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            if name.endswith(("f0_level", "voice_gain")):
                value.fill_({"f0_level": 5.0, "voice_gain": 1.4}[name])
    return {name: graph.eval() for name, graph in exportable(role, network).items()}


@pytest.mark.parametrize("case", KINDS)
def test_every_network_runs_in_onnxruntime_at_other_sizes(case: str, tmp_path: Path) -> None:
    graphs = _made(case)
    assert graphs
    for name, graph in graphs.items():
        deviation = export_graph(graph, tmp_path / f"{name}.onnx")
        assert 0 <= deviation <= 1e-4
    assert all((tmp_path / f"{name}.onnx").is_file() for name in graphs)


def test_a_changed_network_does_not_pass_the_check(tmp_path: Path) -> None:
    graph = _made("face-encoder-head")["face-encoder"]
    export_graph(graph, tmp_path / "face-encoder.onnx")
    with torch.no_grad():
        graph.network.linear.weight.mul_(1.01)
    with pytest.raises(BundleError, match="output deviates from PyTorch by"):
        check_graph(graph, tmp_path / "face-encoder.onnx")
    (tmp_path / "face-encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot be opened"):
        check_graph(graph, tmp_path / "face-encoder.onnx")


def test_a_traced_constant_does_not_pass_the_check(tmp_path: Path) -> None:
    class Remembers(torch.nn.Module):
        """Cuts to the length of the example it was traced on."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, : int(x.shape[1]) // 2].sum(1)

    with pytest.raises(BundleError, match="deviates"):
        export_graph(Plain(Remembers(), ("length", 4)), tmp_path / "x.onnx")


# the exportable forms against the originals: what export_graph compares with must itself be right


def test_vocoder_on_real_numbers_is_the_vocoder() -> None:
    graph = _made("vocoder")["vocoder"]
    assert isinstance(graph, ExportableVocoder)
    mel, f0, _ = graph.example(2, 40, 0)
    generator = torch.Generator().manual_seed(graph.vocoder.config.noise_seed)
    noise = torch.randn((2, 43 * 200), generator=generator).view(2, 43, 200)
    with torch.no_grad():
        expected, found = graph.vocoder(mel, f0), graph(mel, f0, noise)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_vocoder_of_many_projections_is_also_compared_with_few(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("vocoder", {"projections": 6}, size="debug").eval()
    graph = exportable("vocoder", network)["vocoder"]
    strict = graph.well_posed()
    assert strict is not None
    assert strict.projections == 4
    assert strict.well_posed() is None
    assert export_graph(graph, tmp_path / "vocoder.onnx") <= graph.tolerance == 0.1
    with torch.no_grad():
        inside = graph.vocoder.head.bias
        inside[-100:] += 0.01  # one per cent louder: too little for the loose comparison to see
    export_graph(strict, tmp_path / "strict.onnx")
    with torch.no_grad():
        inside[-100:] -= 0.01
    with pytest.raises(BundleError, match="deviates"):
        check_graph(strict, tmp_path / "strict.onnx", tolerance=1e-4)


def test_stft_pair_on_real_numbers() -> None:
    graph = _made("vocoder")["vocoder"]
    torch.manual_seed(1)
    blocks = torch.randn(2, 9, 200)
    expected = graph.vocoder.analyse(blocks)
    found = graph.analyse(blocks)
    assert torch.allclose(torch.complex(found[..., :513], found[..., 513:]), expected, atol=1e-4)
    assert torch.allclose(graph.synthesise(found), graph.vocoder.synthesise(expected), atol=1e-5)


def test_continuous_pitch_without_running_maximum() -> None:
    torch.manual_seed(2)
    f0 = torch.where(torch.rand(50, 17) < 0.6, torch.zeros(50, 17), 80 + 100 * torch.rand(50, 17))
    f0[0], f0[1], f0[2, 1:], f0[3, :-1] = 0, 120, 0, 0
    assert torch.allclose(_continuous_pitch(f0), continuous_pitch(f0), atol=1e-4)


def test_spline_by_products_only() -> None:
    torch.manual_seed(0)
    mean = torch.rand(1, 60, 2) * 2 - 1
    source, target = mean + 0.03 * torch.randn(3, 60, 2), 0.1 * torch.randn(3, 60, 2)
    met: list[torch.Tensor] = []

    def remember(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        from crossmodal.models.exportable import positive_part

        met.append(torch.linalg.inv(positive_part(system.double())[0]))
        return right

    spline_coefficients(mean, mean, solve=remember)
    expected = spline_coefficients(source.double(), target.double())
    found = spline_coefficients(
        source, target, solve=lambda a, b: solve_spline(a, b, met[0], 100)
    )  # strewn more wildly than faces
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_decoder_from_a_packed_basis_is_the_decoder() -> None:
    torch.manual_seed(0)
    filled = _made("face-decoder")["face-decoder"].decoder
    packed = build("face-decoder", size="debug").eval()
    packed.load_export({name: value.clone() for name, value in filled.export_state().items()})
    graph = exportable("face-decoder", packed)["face-decoder"]
    feature, skin = graph.example(3, 0, 5)
    own = torch.full((3, 3), -1.0)
    with torch.no_grad():
        assert (graph(feature, own)[0] - packed(feature).image).abs().max() < 1e-4
        skin[skin < 0] = 0.4
        expected, (image, landmarks) = packed(feature, skin), graph(feature, skin)
    assert torch.allclose(landmarks, expected.landmarks, atol=1e-3)
    assert (image - expected.image).abs().max() < 1e-4
    assert image.std() > 0.01


def test_acoustic_model_in_two_halves_speaks_the_same() -> None:
    from crossmodal.models.acoustic import frame_layout
    from crossmodal.text import encode

    graphs = _made("acoustic")
    text, frames = graphs["acoustic-text"], graphs["acoustic-frames"]
    tokens, voice = encode("Good morning, north wind."), torch.rand(256, generator=torch.Generator().manual_seed(0))
    expected = text.acoustic.infer(tokens, voice, pitch=3.0)

    def row(values: Any) -> torch.Tensor:
        return torch.tensor([[int(v) for v in values]])

    given = [row(v) for v in (tokens.phones, tokens.stress, tokens.word_final, tokens.punctuation)]
    with torch.no_grad():
        states, condition, _, energy = text(*given, torch.ones(1, len(tokens)), voice[None])
        index, position = frame_layout(expected.durations.tolist())
        shift = torch.full((1, len(index)), 3.0 * np.log(2) / 12)
        token, place = torch.as_tensor(index)[None], torch.as_tensor(position)[None].float()
        mel, f0 = frames(states, condition, energy, given[0], token, place, shift, voice[None])
    torch.testing.assert_close(mel[0], expected.mel, rtol=0, atol=1e-4)
    torch.testing.assert_close(f0[0], expected.f0, rtol=1e-4, atol=1e-3)


# bundles


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    bundle = write_debug_bundle(folder / "debug")
    arguments = ["models", "export", str(folder / "onnx"), "--format", "onnx", "--from", str(bundle), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["left_out"] == []
    assert {graph["role"] for graph in content["graphs"]} == set(Bundle.open(bundle).info.modules)
    return folder / "onnx"


def test_exported_bundle_is_whole_and_still_a_bundle(exported: Path) -> None:
    bundle = Bundle.open(exported)
    assert sum(name.endswith(".onnx") for name in bundle.info.files) == len(graphs_of(bundle)) == 9
    assert len(bundle.verify()) > 9
    assert all(graph["deviation"] <= 1e-4 for graph in graphs_of(bundle).values())  # the debug vocoder projects once
    assert graphs_of(bundle)["vocoder"]["inputs"]["mel"] == {0: "batch", 2: "frames"}
    damaged = exported / "onnx" / "vocoder.onnx"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    original = damaged.read_bytes()
    try:
        damaged.write_bytes(bytes(content))
        with pytest.raises(BundleError, match="checksum"):
            bundle.verify()
    finally:
        damaged.write_bytes(original)


def test_what_is_refused(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debug = Bundle.open(exported.parent / "debug")
    with pytest.raises(OutputError, match="exists already"):
        export_bundle(debug, exported)
    with pytest.raises(BundleError, match="holds no ONNX.*--format onnx"):
        graphs_of(debug)
    assert CliRunner().invoke(app, ["models", "export", str(tmp_path / "x"), "--format", "pickle"]).exit_code == 2
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    with pytest.raises(DependencyError, match="crossmodal\\[onnx\\]"):
        export_bundle(debug, tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_bundle_with_a_graph_that_deviates_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(write_debug_bundle(tmp_path / "debug", without=("face-decoder", "acoustic", "vocoder")))
    monkeypatch.setattr(Exportable, "tolerance", -1.0)
    with pytest.raises(BundleError, match="deviates"):
        export_bundle(bundle, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["debug"]


def test_journeys_by_onnxruntime_are_the_journeys(exported: Path) -> None:
    from crossmodal.face2speech import Face2Speech
    from crossmodal.onnx_runtime import use_onnx
    from crossmodal.speech2face import Speech2Face
    from tests.generated import drawn_face, sung_voice

    bundle = Bundle.open(exported)
    voice, photo = sung_voice(3.0, 140.0, seed=0), drawn_face(256, seed=0)
    drawn, spoken = [], []
    for runtime in ("torch", "onnx"):
        s2f = Speech2Face(bundle, "cpu")
        if runtime == "onnx":
            use_onnx(s2f)
        f2s = Face2Speech(bundle, "cpu").share(s2f)
        faces = s2f(voice, sample_rate=16_000, n=2, seed=3)
        drawn.append(np.stack([np.asarray(face.image, dtype=float) for face in faces]))
        spoken.append(f2s(photo, "The wind, and the sun.", no_detect=True))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1  # of 255: rounding
    torch.testing.assert_close(spoken[0].embedding, spoken[1].embedding, rtol=0, atol=1e-5)
    a, b = spoken[0].waveform, spoken[1].waveform
    assert len(a) == len(b)
    assert np.abs(a - b).max() < 1e-2 * np.abs(a).max()
    assert dataclasses.asdict(spoken[1])["sample_rate"] == 16_000
