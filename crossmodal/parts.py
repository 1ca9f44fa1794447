"""Parts of a bundle: one written from an imported network with its credits, and a whole bundle made of several.

A part is a bundle with one network in it, such as a training run exports: ``crossmodal.bundle.Bundle`` opens both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossmodal.bundle import ROLES, Bundle, BundleWriter, check_spaces
from crossmodal.errors import BundleError, SpaceMismatchError
from crossmodal.files import sha256

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Credit:
    """Whose weights they are and what may be done with them."""

    name: str
    paper: str
    """Authors, title, place and year."""
    source: str
    """Where the weights are published."""
    licence: str
    use: str
    """Limits of use, one sentence."""


CREDITS: dict[str, Credit] = {
    "vgg-face": Credit(
        name="VGG-Face",
        paper='Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", BMVC 2015',
        source="https://www.robots.ox.ac.uk/~vgg/software/vgg_face/",
        licence="weights: Creative Commons Attribution, for non-commercial research purposes",
        use="Research only, not commercial; trained on pictures of celebrities who were not asked.",
    ),
    "facenet-vggface2": Credit(
        name="FaceNet (Inception-ResNet v1) trained on VGGFace2",
        paper='Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015; Cao et al., "VGGFace2", FG 2018',
        source="https://github.com/timesler/facenet-pytorch",
        licence="code and weights: MIT; the training pictures (VGGFace2) were for research only",
        use="Check whether weights trained on research-only pictures suit your use.",
    ),
    "facenet-casia-webface": Credit(
        name="FaceNet (Inception-ResNet v1) trained on CASIA-WebFace",
        paper='Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015; Yi et al., "Learning Face Representation from '
        'Scratch", 2014',
        source="https://github.com/timesler/facenet-pytorch",
        licence="code and weights: MIT; the training pictures (CASIA-WebFace) were for research only",
        use="Check whether weights trained on research-only pictures suit your use.",
    ),
    "resemblyzer": Credit(
        name="Resemblyzer's speaker encoder",
        paper='Wan, Wang, Papir and Lopez Moreno, "Generalized End-to-End Loss for Speaker Verification", ICASSP 2018',
        source="https://github.com/resemble-ai/Resemblyzer",
        licence="Apache-2.0",
        use="Trained on LibriSpeech, VoxCeleb1 and VoxCeleb2.",
    ),
    "coqui-speaker-encoder": Credit(
        name="coqui's speaker encoder",
        paper='Heo, Lee, Huh and Chung, "Clova Baseline System for the VoxCeleb Speaker Recognition Challenge 2020"; '
        'Casanova et al., "YourTTS", ICML 2022',
        source="https://github.com/idiap/coqui-ai-TTS",
        licence="that of the file; the one released with YourTTS: CC BY-NC-ND 4.0",
        use="YourTTS's file: not commercial, and no changed copy may be handed on.",
    ),
    "face-from-voice": Credit(
        name="Face From Voice",
        paper='Pietkun, "Face From Voice: PyTorch Adaptation of Speech2Face Framework", Procedia Computer Science 2024',
        source="https://github.com/Kacper-Pietkun/Speech-to-face",
        licence="code: MIT; no licence is stated for the weights",
        use="Trained on HQ-VoxCeleb, and on features of VGG-Face, which is for research only.",
    ),
}
"""Credits of the weights that ``crossmodal models import`` knows."""


def write_part(
    folder: str | Path,
    role: str,
    network: nn.Module,
    *,
    credit: Credit | None,
    files: Sequence[str | Path],
    notes: Sequence[str] = (),
    half: bool = False,
) -> Path:
    """Write an imported network as a part, with a card that names its origin, licence and limits.

    Args:
        folder: replaced when everything worked.
        role: a role of :data:`crossmodal.bundle.ROLES`.
        network: with ``kind`` and ``config``.
        credit: whose weights they are; ``None`` if the importer does not know.
        files: what was read; names and checksums go into the card.
        notes: further lines of the card.
        half: store large tensors as float16, half the size.
    """
    kind, source = str(network.kind), [Path(file) for file in files]
    title = credit.name if credit else source[0].name
    lines = [f"# {title}: {role}", "", f"Imported weights of {kind}, {ROLES[role]}. Not trained by this library.", ""]
    if credit:
        lines += [f"- paper: {credit.paper}", f"- published at: {credit.source}", f"- licence: {credit.licence}"]
        lines += [f"- use: {credit.use}"]
    else:
        lines += ["- licence and origin: not known to the importer; write them here before you hand this on"]
    lines += [f"- read from: {path.name}, SHA-256 {sha256(path)}" for path in source]
    lines += [f"- {note}" for note in notes]
    with BundleWriter(folder, name=f"{role}-{kind}", licence=credit.licence if credit else "not known") as writer:
        writer.add(role, kind, network, dtype="float16" if half else "float32")
        writer.card("\n".join([*lines, ""]))
    return Path(folder)


def compose(
    parts: Sequence[str | Path],
    folder: str | Path,
    *,
    base: str | Path | None = "starter",
    without: Sequence[str] = (),
    name: str = "composed",
) -> Path:
    """Make a bundle of parts; roles that no part fills come from ``base``.

    Args:
        parts: bundles or parts; of two with the same role the later one wins.
        folder: replaced when everything worked.
        base: what fills the rest; ``None`` for nothing.
        without: roles to leave out.
        name: of the new bundle.

    Raises:
        BundleError: a part cannot be opened, or ``without`` names no role.
        SpaceMismatchError: two networks that meet name different spaces.
    """
    unknown = [role for role in without if role not in ROLES]
    if unknown:
        raise BundleError(f"unknown role '{unknown[0]}'", source="without", remedy=f"known: {', '.join(ROLES)}")
    filler = Bundle.open(base) if base is not None else None
    origin: dict[str, Bundle] = {}
    for bundle in [*([filler] if filler else []), *(Bundle.open(part) for part in parts)]:
        origin.update(dict.fromkeys(bundle.info.modules, bundle))
    origin = {role: origin[role] for role in ROLES if role in origin and role not in without}
    modules = {role: bundle.info.modules[role] for role, bundle in origin.items()}
    try:
        check_spaces(modules, source=folder)
    except SpaceMismatchError as error:
        filled = [role for role, bundle in origin.items() if bundle is filler and role in error.problem]
        remedy = f"give a part of the same space, or leave it out: --without {filled[0]}" if filled else error.remedy
        raise SpaceMismatchError(error.problem, source=folder, remedy=remedy) from None
    used = list(dict.fromkeys(origin.values()))
    licences = list(dict.fromkeys(b.info.licence or f"not stated ({b.info.name})" for b in used))
    with BundleWriter(folder, name=name, licence="; ".join(licences)) as writer:
        for role, bundle in origin.items():
            writer.copy_module(bundle, role)
        kept = {"speaker-encoder", "face-encoder", "face-features"}
        if filler and "calibration.yaml" in filler.info.files and all(origin.get(role) is filler for role in kept):
            writer.add_file(filler.file("calibration.yaml"), "calibration.yaml")
        for number, bundle in enumerate(used, start=1):
            if "README.md" in bundle.info.files:
                writer.add_file(bundle.file("README.md"), f"credits/{number}-{bundle.info.name}.md")
        writer.card(_card(name, origin, used))
    return Path(folder)


def _card(name: str, origin: dict[str, Bundle], used: Sequence[Bundle]) -> str:
    lines = [f"# {name}", "", "A bundle put together from these parts.", "", "| role | network | from | licence |"]
    lines.append("| --- | --- | --- | --- |")
    for role, bundle in origin.items():
        licence = bundle.info.licence or "not stated"
        lines.append(f"| {role} | {bundle.info.modules[role].kind} | {bundle.info.name} | {licence} |")
    lines += ["", "The strictest of the licences binds the whole. The cards of the parts are in `credits/`:", ""]
    for number, bundle in enumerate(used, start=1):
        card = "README.md" in bundle.info.files
        lines.append(f"{number}. {bundle.info.name}" + ("" if card else " (has no card)"))
    lines += ["", "The combination was not measured: `crossmodal evaluate` does that.", ""]
    return "\n".join(lines)
