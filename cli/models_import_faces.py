"""``crossmodal models import vgg-face`` and ``facenet``: published face-recognition networks as bundle parts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json, say

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle part to write.")]
Half = Annotated[bool, typer.Option("--half", help="Store the weights as float16: half the size.")]


class VGGSource(str, Enum):
    """Where a VGG-Face file comes from."""

    DEEPFACE = "deepface"
    RCMALLI = "rcmalli"
    STATE_DICT = "state-dict"


class Channels(str, Enum):
    """Colour order that a file's first layer expects."""

    AUTO = "auto"
    RGB = "rgb"
    BGR = "bgr"


class Pixels(str, Enum):
    """What the first layer sees."""

    CENTRED = "centred"
    UNIT = "unit"


class FaceNetSource(str, Enum):
    """What FaceNet was trained on."""

    VGGFACE2 = "vggface2"
    CASIA = "casia-webface"


def register(group: typer.Typer) -> None:
    """Add the commands to ``crossmodal models import``."""
    group.command("vgg-face")(_vgg_face)
    group.command("facenet")(_facenet)


def report(folder: Path, *, json: bool) -> None:
    """Say what was written."""
    from crossmodal.bundle import Bundle
    from crossmodal.config import to_dict

    info = Bundle.open(folder).info
    if json:
        print_json({"output": folder, "licence": info.licence, "modules": to_dict(info)["modules"]})
        return
    for role, entry in info.modules.items():
        spaces = " → ".join(filter(None, (entry.input_space, entry.output_space)))
        say(f"wrote {folder}: {role} {entry.kind}, {spaces}, {entry.parameters / 1e6:.1f} M parameters")
    say(f"licence: {info.licence}")


def _vgg_face(
    source: Annotated[VGGSource, typer.Argument(help="Whose file: deepface, rcmalli, or state-dict (.pth).")],
    file: Annotated[Path, typer.Argument(help="vgg_face_weights.h5, rcmalli_vggface_tf_vgg16.h5 or vgg_face_dag.pth.")],
    out: Out,
    identities: Annotated[
        int, typer.Option(min=0, help="Outputs of the last layer, fc8; 0: import without it (no distillation).")
    ] = 2622,
    channels: Annotated[
        Channels, typer.Option(help="Colour order the file expects; auto: BGR for rcmalli (from Caffe), else RGB.")
    ] = Channels.AUTO,
    pixels: Annotated[
        Pixels,
        typer.Option(help="centred: 0–255 less the mean, as published. unit: 0–1, as Face From Voice's networks want."),
    ] = Pixels.CENTRED,
    half: Half = False,
    json: Json = False,
) -> None:
    """Import VGG-Face (Parkhi et al. 2015), the face feature of Speech2Face: fc7, 4096 numbers.

    The Keras files are read with h5py alone: pip install 'crossmodal\\[keras]'.

    Example:

        crossmodal models import vgg-face rcmalli rcmalli_vggface_tf_vgg16.h5 -o vggface

        crossmodal train speech2face --data DIR --set config.face_weights=vggface
    """
    from crossmodal.models.face_features import VGGFaceConfig, VGGFaceFeatures
    from crossmodal.parts import CREDITS, write_part

    space = "vggface-4096" if pixels is Pixels.CENTRED else "vggface-unit-4096"
    config = VGGFaceConfig(identities=identities, pixels=pixels.value, output_space=space)
    network = VGGFaceFeatures.from_file(file, config, source=source.value, channels=channels.value)
    notes = [f"layout {source.value}, colour order {channels.value}, now RGB"]
    if not identities:
        notes.append("without fc8: Speech2Face's distillation term cannot be computed with it")
    write_part(out, "face-features", network, credit=CREDITS["vgg-face"], files=[file], notes=notes, half=half)
    report(out, json=json)


def _facenet(
    out: Out,
    source: Annotated[FaceNetSource, typer.Argument(help="What it was trained on.")] = FaceNetSource.VGGFACE2,
    file: Annotated[
        Path | None, typer.Argument(help="The .pt file, if you have it; without it, it is downloaded (110 MB).")
    ] = None,
    half: Half = False,
    json: Json = False,
) -> None:
    """Import FaceNet, facenet-pytorch's Inception-ResNet v1: face features of 512 numbers.

    The two files make different vectors: their spaces are facenet-512 (vggface2) and facenet-casia-512.

    Example:

        crossmodal models import facenet vggface2 -o facenet

        crossmodal models import facenet casia-webface 20180408-102900-casia-webface.pt -o facenet
    """
    import tempfile

    from crossmodal.models.face_features import FaceNetConfig, FaceNetFeatures
    from crossmodal.models.foreign_weights import FACENET_URLS, download
    from crossmodal.parts import CREDITS, write_part

    with tempfile.TemporaryDirectory() as scratch:
        if file is None:
            url = FACENET_URLS[source.value]
            say(f"downloading {url}", quiet=json)
            file = download(url, Path(scratch), remedy=f"crossmodal models import facenet {source.value} FILE")
        space = "facenet-512" if source is FaceNetSource.VGGFACE2 else "facenet-casia-512"
        network = FaceNetFeatures.from_file(file, FaceNetConfig(output_space=space))
        notes = ["the classifier over the training identities was left out"]
        credit = CREDITS[f"facenet-{source.value}"]
        write_part(out, "face-features", network, credit=credit, files=[file], notes=notes, half=half)
    report(out, json=json)
