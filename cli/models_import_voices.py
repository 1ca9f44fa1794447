"""``crossmodal models import speaker-encoder``: published speaker encoders as bundle parts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json
from crossmodal.cli.models_import_faces import Out, report


class Source(str, Enum):
    """Whose speaker encoder."""

    RESEMBLYZER = "resemblyzer"
    COQUI = "coqui"


def register(group: typer.Typer) -> None:
    """Add the command to ``crossmodal models import``."""
    group.command("speaker-encoder")(_speaker_encoder)


def _speaker_encoder(
    source: Annotated[Source, typer.Argument(help="Whose: resemblyzer or coqui.")],
    out: Out,
    file: Annotated[
        Path | None,
        typer.Argument(help="coqui: model_se.pth. resemblyzer: another pretrained.pt than the package's."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="coqui: config_se.json; the one beside the file if not given.", show_default=False),
    ] = None,
    space: Annotated[
        str, typer.Option(help="Name of its embedding, NAME-SIZE, for weights of your own.", show_default=False)
    ] = "",
    json: Json = False,
) -> None:
    """Import a speaker encoder. Its embedding space has a name; networks of another space refuse to work with it.

    The package's Resemblyzer weights write ge2e-256, the starter's space; coqui's ResNet (YourTTS) yourtts-512.

    Examples:

        crossmodal models import speaker-encoder resemblyzer -o ge2e

        crossmodal models import speaker-encoder coqui model_se.pth --config config_se.json -o yourtts-ears
    """
    from crossmodal.models.speaker_encoder import SpeakerEncoder
    from crossmodal.parts import CREDITS, write_part

    if source is Source.COQUI:
        from crossmodal.models.coqui_speaker import CoquiSpeakerEncoder

        if file is None:
            raise typer.BadParameter("coqui needs its file: model_se.pth")
        config = config or file.with_name("config_se.json")
        coqui = CoquiSpeakerEncoder.from_files(file, config, space=space)
        credit = CREDITS["coqui-speaker-encoder"]
        write_part(out, "speaker-encoder", coqui, credit=credit, files=[file, config])
    else:
        encoder = SpeakerEncoder.from_package() if file is None else SpeakerEncoder.from_file(file, space=space)
        own = encoder.config.output_space == "ge2e-256"
        files = [file] if file else [SpeakerEncoder.package_file()]
        write_part(out, "speaker-encoder", encoder, credit=CREDITS["resemblyzer"] if own else None, files=files)
    report(out, json=json)
