"""Draw what the README shows of face + text → speech: the example face, and its speech as log-mel with F0.

::

    python -m crossmodal.recipes.starter.draw_speech recipes/starter/pictures/speech.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from crossmodal import audio, faces
from crossmodal.face2speech import Face2Speech
from crossmodal.pictures import spectrogram_picture
from crossmodal.provenance import save_image

TEXT = "Good morning. This voice was made to suit a face."


def main(target: Path) -> None:
    """Write the picture."""
    journey = Face2Speech.from_pretrained(device="cpu")
    photo = journey.bundle.file("examples/face.png")
    speech = journey(photo, TEXT)
    mel = audio.log_mel(torch.from_numpy(speech.waveform)).numpy()  # (M, F)
    sound = spectrogram_picture(mel, audio.pitch(speech.waveform), size=(560, 260))
    sheet = Image.new("RGB", (260 + 10 + 560, 260), (255, 255, 255))
    sheet.paste(faces.load_image(photo).resize((260, 260), Image.Resampling.LANCZOS), (0, 0))
    sheet.paste(sound, (270, 0))
    save_image(target, sheet, speech.details)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
