"""Bundles: written whole, verified on opening and loading, opened from a folder or a hub cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from crossmodal.bundle import Bundle, BundleWriter, list_bundles
from crossmodal.config import load_yaml, save_yaml
from crossmodal.errors import BundleError, OutputError, SpaceMismatchError
from crossmodal.models import build


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a face encoder, an external speaker encoder, a card and an example."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bundle") / "b"
    example = folder.parent / "x.txt"
    example.write_text("hello")
    with BundleWriter(folder, name="tiny", licence="CC0") as writer:
        writer.add("face-encoder", "face-encoder-head", build("face-encoder-head", size="debug"), dtype="float32")
        writer.add_external("speaker-encoder", "speaker-encoder", "resemblyzer", "pretrained.pt")
        writer.card("# tiny\n")
        writer.add_file(example, "examples/x.txt")
    return folder


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "b"))


def test_round_trip(bundle):
    torch.manual_seed(0)
    network = build("face-encoder-head", size="debug").eval()
    opened = Bundle.open(bundle)
    loaded = opened.load("face-encoder")
    assert not loaded.training
    x = torch.randn(3, 128)
    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)
    assert opened.info.modules["face-encoder"].input_space == "dlib-128"
    assert opened.info.modules["speaker-encoder"].output_space == "ge2e-256"
    assert len(opened.verify()) == 5  # config, weights, card, example, external weights
    assert opened.load("speaker-encoder").embed(torch.randn(16_000)).shape == (256,)


def test_half_precision_is_restored_as_float32(tmp_path):
    network = build("face-encoder-head", size="debug").eval()
    with BundleWriter(tmp_path / "h", name="half") as writer:
        writer.add("face-encoder", "face-encoder-head", network)
    loaded = Bundle.open(tmp_path / "h").load("face-encoder")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    x = torch.randn(2, 128)
    torch.testing.assert_close(loaded(x), network(x), rtol=2e-2, atol=2e-2)


def test_loading_draws_no_random_weights_and_fills_every_one(bundle):
    opened = [Bundle.open(bundle), Bundle.open()]
    before = torch.get_rng_state()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(3).isnan().all()
        for one in opened:
            for role in one.info.modules:
                if role != "face-decoder":
                    state = one.load(role).state_dict()
                    assert all(torch.isfinite(value).all() for value in state.values()), role
                if role in ("speaker-encoder", "face-features", "acoustic", "vocoder"):  # the large ones
                    assert torch.equal(torch.get_rng_state(), before), role
                before = torch.get_rng_state()
    finally:
        torch.use_deterministic_algorithms(False)


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_tampered_weights(bundle):
    _flip_byte(bundle / "face-encoder.safetensors")
    with pytest.raises(BundleError, match=r"face-encoder\.safetensors: does not match its checksum"):
        Bundle.open(bundle).load("face-encoder")
    with pytest.raises(BundleError, match="checksum"):
        Bundle.open(bundle).verify()


def test_tampered_config(bundle):
    _flip_byte(bundle / "face-encoder.yaml")
    with pytest.raises(BundleError, match=r"face-encoder\.yaml"):
        Bundle.open(bundle).load("face-encoder")


def test_truncated_and_missing_files(bundle):
    weights = bundle / "face-encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BundleError, match=r"face-encoder\.safetensors.*truncated"):
        Bundle.open(bundle)
    weights.unlink()
    with pytest.raises(BundleError, match=r"face-encoder\.safetensors: is missing"):
        Bundle.open(bundle)


def _edit(bundle: Path, change) -> None:
    listing = load_yaml(bundle / "bundle.yaml")
    change(listing)
    save_yaml(listing, bundle / "bundle.yaml")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda b: b.update(format=99), BundleError, "format 99"),
        (lambda b: b.update(nmae="x"), BundleError, "unknown key 'nmae'"),
        (lambda b: b["modules"].update({"nose": {"kind": "x", "package": "y"}}), BundleError, "unknown role 'nose'"),
        (lambda b: b["modules"]["face-encoder"].update(weights="../../etc/passwd"), BundleError, "no checksum"),
        (lambda b: b["files"].update({"../x": {"sha256": "0", "bytes": 1}}), BundleError, "unsafe file name"),
        (lambda b: b["files"].update({"/x": {"sha256": "0", "bytes": 1}}), BundleError, "unsafe file name"),
        (lambda b: b["modules"]["face-encoder"].update(output_space="other-9"), SpaceMismatchError, "other-9"),
    ],
)
def test_a_listing_that_lies(bundle, change, error, message):
    _edit(bundle, change)
    with pytest.raises(error, match=message):
        Bundle.open(bundle)


def test_a_config_of_another_space_than_listed(bundle):
    _edit(bundle, lambda b: b["modules"]["face-encoder"].update(input_space="facenet-512"))
    with pytest.raises(SpaceMismatchError, match=r"facenet-512.*dlib-128"):
        Bundle.open(bundle).load("face-encoder")


def test_mismatched_spaces_are_refused_when_writing(tmp_path):
    network = build("face-encoder-head", {"output_space": "other-256"}, size="debug")
    with (
        pytest.raises(SpaceMismatchError, match=r"ge2e-256.*other-256"),
        BundleWriter(tmp_path / "m", name="m") as writer,
    ):
        writer.add_external("speaker-encoder", "speaker-encoder", "resemblyzer", "pretrained.pt")
        writer.add("face-encoder", "face-encoder-head", network)
    assert not any(tmp_path.iterdir())


def test_a_changed_external_file_is_noticed(bundle):
    _edit(bundle, lambda b: b["modules"]["speaker-encoder"].update(sha256="0" * 64))
    with pytest.raises(BundleError, match=r"pretrained\.pt"):
        Bundle.open(bundle).load("speaker-encoder")


def test_weights_of_another_network(bundle, tmp_path):
    with BundleWriter(tmp_path / "w", name="w") as writer:
        writer.add("face-encoder", "face-encoder-head", build("face-encoder-head", size="debug"))
    _edit(tmp_path / "w", lambda b: b["modules"]["face-encoder"].update(kind="speaker-encoder"))
    with pytest.raises(BundleError, match="cannot be built|does not fit"):
        Bundle.open(tmp_path / "w").load("face-encoder")


def test_missing_role_and_missing_bundle(bundle, tmp_path):
    with pytest.raises(BundleError, match="has no vocoder"):
        Bundle.open(bundle).load("vocoder")
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"has no bundle\.yaml"):
        Bundle.open(tmp_path / "empty")


def test_a_failed_write_keeps_the_old_bundle(bundle):
    before = (bundle / "bundle.yaml").read_bytes()
    with pytest.raises(BundleError, match="unknown role"), BundleWriter(bundle, name="new") as writer:
        writer.add("nose", "face-encoder-head", build("face-encoder-head", size="debug"))
    assert (bundle / "bundle.yaml").read_bytes() == before
    assert [p.name for p in bundle.parent.iterdir()] == ["b"]


def test_only_a_bundle_is_replaced(bundle, tmp_path):
    """A folder or file of the user's own is never the price of a new bundle."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    (tmp_path / "voice.wav").write_text("a recording")
    (bundle / "notes.txt").write_text("what I changed")
    for folder, message in (("own", r"own: holds thesis\.txt"), ("voice.wav", "is a file"), ("b", r"holds notes\.txt")):
        with pytest.raises(OutputError, match=message):
            BundleWriter(tmp_path / folder, name="new")
    assert (tmp_path / "own" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "voice.wav").read_text() == "a recording"
    (bundle / "notes.txt").unlink()
    (tmp_path / "empty").mkdir()
    for folder in ("b", "empty"):
        with BundleWriter(tmp_path / folder, name="new") as writer:
            writer.card("# new")
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["README.md", "bundle.yaml"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_full_disk_is_told_of_the_bundle(bundle, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with (
        pytest.raises(OutputError, match=r"/new: cannot be written \(No space left on device\)$"),
        BundleWriter(tmp_path / "new", name="new") as writer,
    ):
        writer.add("face-encoder", "face-encoder-head", build("face-encoder-head", size="debug"))
    monkeypatch.setattr(shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match=r"/copy: cannot be written \(No space left on device\)$"):
        Bundle.open(bundle).export(tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_export_copies_and_refuses_to_overwrite(bundle, tmp_path):
    Bundle.open(bundle).export(tmp_path / "copy")
    assert len(Bundle.open(tmp_path / "copy").verify()) == 5
    with pytest.raises(OutputError, match="exists already"):
        Bundle.open(bundle).export(tmp_path / "copy")


def test_hub_id_from_a_local_cache(bundle, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--voices" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(bundle, snapshot)
    reference = cache / "models--someone--voices" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(snapshot.name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    opened = Bundle.open("someone/voices", local_files_only=True)
    assert opened.info.name == "tiny"
    assert len(opened.verify()) == 5
    with pytest.raises(BundleError, match=r"someone/faces: cannot be had from the hub"):
        Bundle.open("someone/faces", local_files_only=True)
    assert isinstance(list_bundles(), list)
