"""Bundles composed of parts, sent to the hub and fetched from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from typer.testing import CliRunner

from crossmodal import hub
from crossmodal.bundle import Bundle, BundleWriter
from crossmodal.cli.app import app
from crossmodal.errors import BundleError, OutputError, SpaceMismatchError
from crossmodal.files import sha256
from crossmodal.models import build
from crossmodal.parts import compose, write_part
from tests.debug_bundle import write_debug_bundle


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_debug_bundle(tmp_path_factory.mktemp("base") / "base")


def part(folder: Path, role: str, kind: str, config: dict[str, Any] | None = None) -> Path:
    """An imported network of random weights, its origin not known."""
    source = folder.parent / f"{folder.name}.pt"
    source.write_bytes(b"weights")
    torch.manual_seed(7)
    return write_part(folder, role, build(kind, config or {}, size="debug"), credit=None, files=[source])


# Compose ------------------------------------------------------------------------------------------------------------


def test_a_part_takes_the_place_of_the_base(tmp_path: Path, base: Path) -> None:
    encoder = part(tmp_path / "enc", "face-encoder", "face-encoder-head")
    result = run("compose", encoder, "--base", base, "-o", tmp_path / "mine", "--name", "mine")
    assert result.exit_code == 0, result.output
    bundle = Bundle.open(tmp_path / "mine")
    bundle.verify()
    assert set(bundle.info.modules) == set(Bundle.open(base).info.modules)
    assert sha256(tmp_path / "mine" / "face-encoder.safetensors") == sha256(encoder / "face-encoder.safetensors")
    assert sha256(tmp_path / "mine" / "vocoder.safetensors") == sha256(base / "vocoder.safetensors")
    card = bundle.file("README.md").read_text()
    assert "| face-encoder | face-encoder-head | face-encoder-face-encoder-head | not known |" in card
    assert "enc.pt, SHA-256" in bundle.file("credits/2-face-encoder-face-encoder-head.md").read_text()
    assert "calibration.yaml" not in bundle.info.files  # the cosines are no longer those measured
    vocoder = part(tmp_path / "voc", "vocoder", "vocoder")
    compose([vocoder], tmp_path / "calibrated", base=base)
    assert "calibration.yaml" in Bundle.open(tmp_path / "calibrated").info.files


def test_spaces_that_do_not_meet_are_refused_with_a_way_out(tmp_path: Path, base: Path) -> None:
    decoder = part(tmp_path / "dec", "face-decoder", "face-decoder-unwarped", {"input_space": "other-16"})
    with pytest.raises(SpaceMismatchError, match=r"'dlib-128'.*'other-16'.*--without feature-head"):
        compose([decoder], tmp_path / "mine", base=base)
    assert not (tmp_path / "mine").exists()
    without = ("feature-head", "voice-encoder", "face-features", "face-encoder")
    compose([decoder], tmp_path / "mine", base=base, without=without)
    assert not set(without) & set(Bundle.open(tmp_path / "mine").info.modules)
    compose([decoder], tmp_path / "alone", base=None)
    assert list(Bundle.open(tmp_path / "alone").info.modules) == ["face-decoder"]
    with pytest.raises(BundleError, match="unknown role 'nose'"):
        compose([decoder], tmp_path / "x", without=["nose"])
    with pytest.raises(BundleError, match="no such bundle"):
        compose([tmp_path / "absent"], tmp_path / "x", base=base)


def test_an_imported_decoder_draws(tmp_path: Path, base: Path) -> None:
    from crossmodal.speech2face import Speech2Face

    decoder = part(tmp_path / "dec", "face-decoder", "face-decoder-unwarped")
    compose([decoder], tmp_path / "mine", base=base)
    face = Speech2Face.from_pretrained(tmp_path / "mine", device="cpu").decode(torch.randn(1, 128))[0]
    assert face.image.size == (16, 16)
    assert face.landmarks.shape == (5, 2)


def test_imported_voice_encoder_and_decoder_make_the_journey(tmp_path: Path, base: Path) -> None:
    from crossmodal.speech2face import Speech2Face

    form = {"padding": 0, "spectrogram": "polar", "output_relu": True, "output_space": "other-16"}
    voice = part(tmp_path / "voice", "voice-encoder", "voice-encoder-conv", form)
    decoder = part(tmp_path / "dec", "face-decoder", "face-decoder-unwarped", {"input_space": "other-16"})
    left = ("feature-head", "face-features", "face-encoder")
    options = [option for role in left for option in ("--without", role)]
    assert run("compose", voice, decoder, "--base", base, *options, "-o", tmp_path / "mine").exit_code == 0
    journey = Speech2Face.from_pretrained(tmp_path / "mine", device="cpu")
    face = journey(Bundle.open("starter").file("examples/voice.wav"))
    assert face.image.size == (16, 16)
    assert face.feature.shape == (16,)


def test_imported_face_network_and_decoder_reface(tmp_path: Path, base: Path) -> None:
    from crossmodal.speech2face import Speech2Face

    form = {"pixels": "unit", "output_space": "vggface-unit-16", "feature_size": 16}
    network = part(tmp_path / "vgg", "face-features", "face-vggface", form)
    decoder = part(tmp_path / "dec", "face-decoder", "face-decoder-unwarped", {"input_space": "vggface-unit-16"})
    left = ("feature-head", "voice-encoder", "face-encoder")
    compose([network, decoder], tmp_path / "mine", base=base, without=left)
    journey = Speech2Face.from_pretrained(tmp_path / "mine", device="cpu")
    face = journey.reface(Bundle.open("starter").file("examples/face.png"))
    assert face.image.size == (16, 16)
    assert face.feature.shape == (16,)


# Push and pull ------------------------------------------------------------------------------------------------------


class _Hub:
    """Stands in for ``HfApi``: keeps what is sent."""

    def __init__(self, *, exists_public: bool = False, fails: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.private, self.fails = not exists_public, fails

    def __call__(self) -> _Hub:
        return self

    def create_repo(self, repo: str, **options: Any) -> None:
        if self.fails:
            raise self.fails
        self.calls.append((repo, options))

    def repo_info(self, repo: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        self.calls.append((options["repo_id"], options))
        return SimpleNamespace(commit_url="https://hub.test/commit/1")


def test_dry_run_lists_sizes_and_hashes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("a dry run sends nothing"))
    result = run("push", base, "someone/voices", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    names = {file["name"] for file in content["files"]}
    assert names == {path.name for path in base.iterdir()}
    for file in content["files"]:
        assert file["bytes"] == (base / file["name"]).stat().st_size
        assert file["sha256"] == sha256(base / file["name"])
    assert content["bytes"] == sum(path.stat().st_size for path in base.iterdir())
    assert content["public"] is False
    lines = run("push", base, "someone/voices", "--dry-run").output
    assert f"{sha256(base / 'bundle.yaml')}  " in lines
    assert "(private)" in lines


def test_push_sends_the_listed_files_only(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "b"))
    (folder / "private-notes.txt").write_text("not part of the bundle")
    api = _Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    result = run("push", folder, "someone/voices", "--message", "First")
    assert result.exit_code == 0, result.output
    assert "https://hub.test/commit/1" in result.output
    (repo, made), (_, sent) = api.calls
    assert (repo, made["private"], made["repo_type"]) == ("someone/voices", True, "model")
    assert set(sent["allow_patterns"]) == {"bundle.yaml", *Bundle.open(folder).info.files}
    assert (sent["folder_path"], sent["commit_message"]) == (folder, "First")
    api.calls.clear()
    assert run("push", folder, "someone/voices", "--public", "--json").exit_code == 0
    assert api.calls[0][1]["private"] is False


def test_push_refuses(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = _Hub(exists_public=True)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    with pytest.raises(OutputError, match="is public already"):
        hub.push(base, "someone/voices")
    assert len(api.calls) == 1  # nothing was sent
    api.calls.clear()
    damaged = Path(shutil.copytree(base, tmp_path / "damaged"))
    content = bytearray((damaged / "vocoder.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "vocoder.safetensors").write_bytes(bytes(content))
    with pytest.raises(BundleError, match="checksum"):
        hub.push(damaged, "someone/voices")
    with BundleWriter(tmp_path / "cardless", name="c") as writer:
        writer.add("vocoder", "vocoder", build("vocoder", size="debug"))
    with pytest.raises(BundleError, match="no model card"):
        hub.push(tmp_path / "cardless", "someone/voices")
    for name in ("voices", "a/b/c", "a/b@c", "../b"):
        with pytest.raises(OutputError, match="give user/name"):
            hub.push(base, name)
    assert not api.calls
    monkeypatch.setattr(huggingface_hub, "HfApi", _Hub(fails=OSError("offline")))
    with pytest.raises(OutputError, match=r"cannot be sent to the hub \(offline\).*hf auth login"):
        hub.push(base, "someone/voices")


def test_pull_is_whole_and_verified_or_nothing(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Path(shutil.copytree(base, tmp_path / "snapshot"))
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, revision: str | None = None, **_: Any) -> str:
        asked.append((repo, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert run("pull", "someone/voices@v2", "-o", tmp_path / "mine").exit_code == 0
    assert asked == [("someone/voices", "v2")]
    assert len(Bundle.open(tmp_path / "mine").verify()) == len(Bundle.open(base).verify())
    assert "exists already" in run("pull", "someone/voices", "-o", tmp_path / "mine").output
    (snapshot / "vocoder.safetensors").write_bytes(b"x" * (snapshot / "vocoder.safetensors").stat().st_size)
    result = run("pull", "someone/voices", "-o", tmp_path / "second")
    assert result.exit_code == 1
    assert "checksum" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "snapshot"]
    assert run("pull", "voices", "-o", tmp_path / "third").exit_code == 1
