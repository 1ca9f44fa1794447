"""``crossmodal speak``: text in the voice that suits a face, or in the voice of a recording."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    FaceIndex,
    Json,
    NoDetect,
    Quiet,
    check_output,
    check_text,
    print_json,
    say,
    show_warnings,
    working,
    write_output,
)

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")


def _read_text(text: str) -> str:
    """``-`` → standard input; the path of an existing text file → its content; anything else is the text itself.

    Raises:
        TextError: what should be read is no UTF-8 text, a folder, or a single name ending in .txt that does not exist.
    """
    from crossmodal.errors import TextError

    name = "standard input" if text == "-" else text
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        path = Path(text)
        if len(text) < 1024 and "\n" not in text:
            if path.is_file():
                return path.read_text(encoding="utf-8")
            if path.is_dir() and "/" in text:
                raise TextError("is a folder", source=name, remedy="name a text file, or give the text itself")
            if path.suffix.lower() == ".txt" and len(text.split()) == 1:
                raise TextError("does not exist", source=name, remedy="check the path, or give the text itself")
    except UnicodeDecodeError as error:
        raise TextError("is not UTF-8 text", source=name, remedy="save it as UTF-8, or give the text itself") from error
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise TextError("cannot be read", source=name, remedy="give the text itself") from error
    return text


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def speak(
        text: Annotated[str, typer.Argument(help="What to say: the text, a text file, or - for standard input.")],
        face: Annotated[
            str | None, typer.Option(help="Photo of a face to give a voice to (- for standard input).")
        ] = None,
        voice: Annotated[str | None, typer.Option(help="Recording to take the voice from, instead of a face.")] = None,
        out: Annotated[
            str, typer.Option("--out", "-o", help="Sound to write (.wav, .flac, .ogg, .mp3; - for standard output).")
        ] = "speech.wav",
        speed: Annotated[float, typer.Option(min=0.5, max=2.0, help="Speaking rate: 0.5 slow, 2 fast.")] = 1.0,
        pitch: Annotated[float, typer.Option(min=-12, max=12, help="Semitones up or down.")] = 0.0,
        seed: Annotated[int, typer.Option(help="Of the noise in hissing sounds.")] = 0,
        face_index: FaceIndex = None,
        no_detect: NoDetect = False,
        watermark: Annotated[
            bool, typer.Option("--watermark/--no-watermark", help="Inaudible mark that the speech is generated.")
        ] = True,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Speak a text in a voice that suits a face, or in the voice of a recording.

        Examples:

            crossmodal speak "Good morning." --face photo.jpg -o hello.wav

            crossmodal speak letter.txt --voice me.mp3 --speed 0.9 -o letter.wav
        """
        if (face is None) == (voice is None):
            raise typer.BadParameter("give either --face PHOTO or --voice RECORDING", param_hint="--face / --voice")
        if text == "-" and "-" in (face, voice):
            raise typer.BadParameter(
                f"text and {'face' if face else 'voice'} cannot both come from standard input", param_hint="TEXT"
            )
        if voice is not None and (face_index is not None or no_detect):
            raise typer.BadParameter(
                "they choose a face; with --voice there is none", param_hint="--face-index / --no-detect"
            )
        show_warnings(quiet)
        check_output(out, SOUNDS, json=json)
        content = _read_text(text)
        check_text(content)
        with working("loading the models", quiet=quiet):
            from crossmodal.face2speech import Face2Speech, as_dict

            journey = Face2Speech.from_pretrained(bundle, device=device)
        with working("speaking", quiet=quiet):
            speech = journey.speak(
                content,
                face=face,
                voice=voice,
                speed=speed,
                pitch=pitch,
                seed=seed,
                index=face_index,
                no_detect=no_detect,
            )
            write_output(out, ".wav", lambda path: speech.save(path, watermark=watermark))
        if json:
            print_json({"output": out, "watermark": watermark, "embedding": speech.embedding, **as_dict(speech)})
        elif out != "-":
            say(f"wrote {out} ({speech.seconds:.1f} s)", quiet=quiet)
