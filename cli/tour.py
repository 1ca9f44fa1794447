"""``crossmodal tour``: both journeys on the examples that ship, as files and one page to look at."""

from __future__ import annotations

import base64
import html
import io
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmodal.cli.common import (
    BundleOption,
    Device,
    Json,
    Quiet,
    check_folder,
    check_text,
    print_json,
    say,
    show_warnings,
    working,
)
from crossmodal.files import atomic_path, atomic_write

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from crossmodal.bundle import Bundle
    from crossmodal.face2speech import Speech
    from crossmodal.journey import Match
    from crossmodal.speech2face import Face

TEXT = "Good morning. This voice was made to suit the face you see; nobody has ever spoken with it."

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem;color:#282c34;
  background:#fafafa}
section{background:#fff;border:1px solid #e3e3e8;border-radius:10px;padding:1rem 1.25rem;margin:1.25rem 0}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:.1rem 0 .6rem}
.step>div{max-width:360px}
.step{display:flex;gap:1.25rem;align-items:center;flex-wrap:wrap}.arrow{font-size:1.8rem;color:#888}
img{max-width:100%;border-radius:6px}audio{width:340px;max-width:100%}
code{background:#f0f0f4;border-radius:4px;padding:.1rem .35rem}.note{color:#666;font-size:.9rem}
"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def tour(
        out: Annotated[
            str, typer.Option("--out", "-o", help="Folder to write; existing files of a tour are replaced.")
        ] = "tour",
        voice: Annotated[str | None, typer.Option(help="Your own recording instead of the example.")] = None,
        photo: Annotated[str | None, typer.Option(help="Your own photo instead of the example.")] = None,
        text: Annotated[str, typer.Option(help="What to say.")] = TEXT,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Run both journeys and write pictures, sounds and one self-contained page, tour.html."""
        show_warnings(quiet)
        folder = Path(out)
        check_folder(folder)
        check_text(text)
        opened, made = _run(folder, voice, photo, text, bundle, device, quiet)
        page = folder / "tour.html"
        atomic_write(page, _page(folder, opened, made, text, own=bool(voice or photo)).encode())
        if json:
            print_json({"page": page.resolve(), "files": sorted(p.name for p in folder.iterdir())})
        else:
            say(f"the tour is in {folder.resolve()}: open {page.resolve()}", quiet=quiet)


@dataclass
class _Made:
    """What went into both journeys and what came out."""

    waveform: np.ndarray
    """``(T,)`` at 16 kHz: the voice."""
    photo: Image.Image
    face: Face
    sheet: Image.Image
    """Four faces for the voice."""
    canonical: Face
    spoken: Speech
    """The text in a voice for the photo."""
    echoed: Speech
    """The text in the voice."""
    match: Match
    seconds: dict[str, float]
    """How long each step took."""


def _run(
    folder: Path, voice: str | None, photo: str | None, text: str, source: str, device: str, quiet: bool
) -> tuple[Bundle, _Made]:
    """Walk both journeys and save what they make in ``folder``."""
    with working("loading the models", quiet=quiet):
        from crossmodal import audio, faces
        from crossmodal.bundle import Bundle
        from crossmodal.face2speech import Face2Speech
        from crossmodal.pictures import contact_sheet
        from crossmodal.provenance import save_image
        from crossmodal.speech2face import Speech2Face

        opened = Bundle.open(source)
        s2f = Speech2Face(opened, device)
        f2s = Face2Speech(opened, device).share(s2f)
    voice_path = Path(voice) if voice else opened.file("examples/voice.wav")
    photo_path = Path(photo) if photo else opened.file("examples/face.png")
    waveform = audio.load(voice_path)
    picture = faces.load_image(photo_path)
    folder.mkdir(parents=True, exist_ok=True)
    if voice is None:
        with atomic_path(folder / "input-voice.wav") as path:
            shutil.copyfile(voice_path, path)
    else:
        audio.save_wav(folder / "input-voice.wav", waveform, 16_000)
    with atomic_path(folder / "input-face.png") as path:
        picture.save(path)

    seconds: dict[str, float] = {}

    def timed(name: str, action: Any) -> Any:
        start = time.perf_counter()
        with working(name, quiet=quiet):
            result = action()
        seconds[name] = time.perf_counter() - start
        say(f"{name}: {seconds[name]:.1f} s", quiet=quiet)
        return result

    face = timed("speech → face", lambda: s2f(voice_path))
    face.save(folder / "face-from-voice.png")
    several = timed("speech → four faces", lambda: s2f(voice_path, n=4))
    sheet = contact_sheet([f.image for f in several], ["most likely", "or", "or", "or"], columns=4, tile=200)
    save_image(folder / "four-faces-from-voice.png", sheet, face.details)
    canonical = timed("photo → canonical face", lambda: s2f.reface(photo_path))
    canonical.save(folder / "canonical-face.png")
    spoken = timed("face + text → speech", lambda: f2s(photo_path, text))
    spoken.save(folder / "speech-from-face.wav")
    echoed = timed("voice + text → speech", lambda: f2s.speak(text, voice=voice_path))
    echoed.save(folder / "speech-from-voice.wav")
    match = timed("voice and face compared", lambda: s2f.match(voice_path, photo_path))
    return opened, _Made(waveform, picture, face, sheet, canonical, spoken, echoed, match, seconds)


def _page(folder: Path, opened: Bundle, made: _Made, text: str, *, own: bool) -> str:
    """The HTML page, with every picture and sound of ``folder`` in it."""

    def sound(name: str, samples: Any) -> str:
        view = _sound_picture(samples)
        encoded = base64.b64encode((folder / name).read_bytes()).decode()
        return f"<div>{_image(view)}<br><audio controls src='data:audio/wav;base64,{encoded}'></audio></div>"

    voice_html, photo_html = sound("input-voice.wav", made.waveform), _image(made.photo, 220)
    words = f"<br>“{html.escape(text)}”</div>"
    sections = [
        (
            "Speech → face",
            "crossmodal face voice.wav -o face.png",
            voice_html,
            _image(made.face.image, 220),
            "The face that this voice makes most likely.",
        ),
        (
            "One voice, several faces",
            "crossmodal face voice.wav -n 4 -o faces.png",
            voice_html,
            _image(made.sheet),
            "Many faces fit one voice; these four are all plausible.",
        ),
        (
            "Photo → canonical face",
            "crossmodal reface photo.jpg -o canonical.png",
            photo_html,
            _image(made.canonical.image, 220),
            "What the face decoder knows of a face: frontal, neutral, evenly lit.",
        ),
        (
            "Face + text → speech",
            'crossmodal speak "Good morning…" --face photo.jpg -o speech.wav',
            f"<div>{photo_html}{words}",
            sound("speech-from-face.wav", made.spoken.waveform),
            "A voice that suits the face. Not the voice of the person in the photo.",
        ),
        (
            "Voice + text → speech",
            'crossmodal speak "Good morning…" --voice voice.wav -o speech.wav',
            f"<div>{voice_html}{words}",
            sound("speech-from-voice.wav", made.echoed.waveform),
            "The same text in the voice of the recording.",
        ),
    ]
    body = "".join(
        f"<section><h2>{title}</h2><p><code>{html.escape(command)}</code></p>"
        f"<div class='step'>{given}<span class='arrow'>→</span>{result}</div><p class='note'>{note}</p></section>"
        for title, command, given, result, note in sections
    )
    compared = "<section><h2>Voice and face compared</h2><p><code>crossmodal match voice.wav photo.jpg</code></p>"
    compared += f"<p>{html.escape(made.match.reading)}.</p></section>"
    timing = ", ".join(f"{name} {value:.1f} s" for name, value in made.seconds.items())
    examples = "" if own else "The example voice and face were generated by this project."
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>crossmodal tour</title>"
        f"<style>{_STYLE}</style></head><body><h1>crossmodal: faces from voices, voices for faces</h1>"
        f"<p>Bundle: <b>{html.escape(opened.info.name)} {html.escape(opened.info.version)}</b>. {examples} "
        "Every picture and sound that came out is marked as generated; none of them identifies anyone.</p>"
        f"{body}{compared}<p class='note'>First use in this process, loading of the networks included: {timing}.</p>"
        "</body></html>"
    )


def _image(picture: Image.Image, width: int | None = None) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    size = f" width='{width}'" if width else ""
    return f"<img{size} src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}' alt=''>"


def _sound_picture(samples: Any) -> Image.Image:
    import torch

    from crossmodal import audio
    from crossmodal.pictures import spectrogram_picture

    mel = audio.log_mel(torch.as_tensor(samples, dtype=torch.float32))
    return spectrogram_picture(mel.reshape(mel.shape[-2], -1).numpy(), audio.pitch(samples), size=(340, 130))
