"""``crossmodal models import coqui-tts``: VITS, YourTTS or XTTS as the TTS of a bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json, say, working

_CARD = """# {kind} from `{source}`

Text + speaker embedding (`{space}`) → speech, in the language `{language}`, by coqui-tts. The weights are those of the
source, unchanged, and so are their licence and terms: YourTTS CC BY-NC-ND 4.0, XTTS v2 Coqui Public Model License (both
not for commercial use), the VITS of VCTK Apache 2.0.
"""


def register(group: typer.Typer) -> None:
    """Add the command to ``crossmodal models import``."""

    @group.command("coqui-tts")
    def coqui_tts(
        source: Annotated[str, typer.Argument(help="Folder with config.json and model.pth, or a name of coqui's zoo.")],
        out: Annotated[str, typer.Option("--out", "-o", help="Folder of the bundle part to write.")],
        space: Annotated[
            str | None, typer.Option(help="Speaker space of its d-vectors, where the model does not tell: ge2e-256.")
        ] = None,
        language: Annotated[str | None, typer.Option(help="What it shall speak; English if it knows it.")] = None,
        json: Json = False,
    ) -> None:
        """Import a VITS, YourTTS or XTTS that coqui-tts trained, in place of acoustic model and vocoder.

        YourTTS and XTTS have speaker spaces of their own: a face encoder has to be trained into them before a face can
        choose the voice (see the recipe face2speech); a recording can at once. A model with numbered speakers (the VITS
        of VCTK) takes the starter's embeddings: each speaker's voice is measured, and the nearest speaks.

        Examples:

            crossmodal models import coqui-tts tts_models/multilingual/multi-dataset/your_tts -o yourtts

            crossmodal models import coqui-tts ~/models/xtts_v2 -o xtts --language fr
        """
        with working("reading and checking the model"):
            from crossmodal.bundle import BundleWriter
            from crossmodal.models.coqui_import import import_coqui
            from crossmodal.models.speaker_encoder import SpeakerEncoder

            tts = import_coqui(source, space=space, language=language, encoder=SpeakerEncoder.from_package())
            with BundleWriter(out, name=tts.kind) as writer:
                writer.add("tts", tts.kind, tts, dtype="float32")
                named = {"space": tts.config.input_space, "language": tts.config.language}
                writer.card(_CARD.format(kind=tts.kind, source=source, **named))
        if json:
            print_json({"output": out, "kind": tts.kind, "sample_rate": tts.sample_rate, **named})
        else:
            say(f"wrote {out}: {tts.kind}, reads {tts.config.input_space}, {tts.sample_rate} Hz")
