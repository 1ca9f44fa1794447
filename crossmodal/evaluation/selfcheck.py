"""Figures that need no data: people the bundle makes up itself are drawn and given voices, then read back.

They say little of quality, since nobody real takes part. They are there to be measured anywhere, in seconds: a bundle
that works here as it did where its card was written gives the card's figures again.
"""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.evaluation.faces import decode, describe_drawn
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.evaluation.report import Report, describe
from crossmodal.face2speech import Face2Speech

PEOPLE = 12
SEED = 7
TEXT = "Nobody has ever spoken these words in this voice before, and nobody ever will again."
NOTE = "Made-up people: the figures show that the bundle works here as elsewhere, not how good it is."


def measure(journey: Face2Speech, people: int = PEOPLE) -> Report:
    """Draw and voice ``people`` face features sampled by the feature head, and read both back.

    Raises:
        BundleError: the bundle lacks a network of either journey.
    """
    head, decoder, network = (journey.module(role) for role in ("feature-head", "face-decoder", "face-features"))
    encoder, listener = journey.module("face-encoder"), journey.module("speaker-encoder")
    with torch.inference_mode():
        neutral = torch.full((1, head.config.input_size), head.config.input_size**-0.5, device=journey.device)
        wanted = head.sample(neutral, people, generator=torch.Generator().manual_seed(SEED))[0]  # (N, D)
        asked = encoder(wanted)  # (N, 256)
        spoken = [journey.speak(TEXT, embedding=voice.clone()).waveform for voice in asked]
        heard = listener.embed_batch(spoken).float().cpu().numpy()
        images = decode(decoder, wanted.cpu().numpy())[2]
    drawn = describe_drawn(images, lambda chips: network.embed(chips).cpu().numpy())
    distance = np.linalg.norm(drawn[:, None] - wanted.cpu().numpy()[None], axis=2)
    return Report(
        "Self-check",
        [
            *_found("face", "distance of the drawn face's feature to the one asked for", distance, -distance),
            *_found("voice", "cosine of the spoken voice to the one asked for", c := heard @ asked.cpu().numpy().T, c),
        ],
        notes=[NOTE],
        bundle=describe(journey.bundle),
        seed=SEED,
    )


def _found(kind: str, name: str, values: np.ndarray, similarity: np.ndarray) -> list[Figure]:
    """Own values beside other people's, and how often one's own is the most similar of ``(N, N)``."""
    count = len(values)
    others = float(values[~np.eye(count, dtype=bool)].mean())
    hits = (similarity.argmax(1) == np.arange(count)).astype(float)
    return [
        figure(f"{kind}: {name}", np.diag(values), reference=others, reference_name="other people"),
        figure(f"{kind}: finds its own of {count}", hits, reference=1 / count, reference_name="chance"),
    ]
