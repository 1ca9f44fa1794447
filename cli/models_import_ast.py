"""``crossmodal models import ast``: a pretrained audio spectrogram transformer as the start of a voice encoder."""

from __future__ import annotations

from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json, say

_CARD = """# Audio Spectrogram Transformer as a voice encoder

The transformer is that of `{source}`, unchanged. The head to the face feature `{space}` is **untrained**: until
`crossmodal train speech2face/ast` has trained it, the faces drawn by it mean nothing. The licence is the source's.
"""


def register(group: typer.Typer) -> None:
    """Add the command to ``crossmodal models import``."""

    @group.command("ast")
    def ast(
        source: Annotated[str, typer.Argument(help="Folder saved by transformers, or a Hugging Face Hub id.")],
        out: Annotated[str, typer.Option("--out", "-o", help="Folder of the bundle part to write.")],
        space: Annotated[str, typer.Option(help="Face feature that the head writes.")] = "vggface-4096",
        pooling: Annotated[str, typer.Option(help="Frames → one vector: token, average or attentive.")] = "token",
        tuned_layers: Annotated[
            int, typer.Option(min=-1, help="What training will change: -1 all, 0 the head only, k the last k layers.")
        ] = -1,
        seed: Annotated[int, typer.Option(help="Of the new head's random weights.")] = 0,
        json: Json = False,
    ) -> None:
        """Import an Audio Spectrogram Transformer as a voice encoder to train.

        Its transformer is taken over; the layer from there to a face feature is new and has to be trained.

        Example:

            crossmodal models import ast MIT/ast-finetuned-audioset-10-10-0.4593 -o ast

            crossmodal train speech2face/ast --set config.ast_weights=MIT/ast-finetuned-audioset-10-10-0.4593
        """
        import torch

        from crossmodal.bundle import BundleWriter
        from crossmodal.config import from_dict, to_dict
        from crossmodal.models.voice_encoder import ASTVoiceEncoder, ASTVoiceEncoderConfig

        values = {"output_space": space, "pooling": pooling, "tuned_layers": tuned_layers}
        config = from_dict(ASTVoiceEncoderConfig, values, source="voice-encoder-ast")
        torch.manual_seed(seed)
        encoder = ASTVoiceEncoder.from_transformer(source, config)
        with BundleWriter(out, name="ast") as writer:
            writer.add("voice-encoder", encoder.kind, encoder, dtype="float32")
            writer.card(_CARD.format(source=source, space=space))
        if json:
            print_json({"output": out, "kind": encoder.kind, "config": to_dict(encoder.config)})
        else:
            say(f"wrote {out}; train its head: crossmodal train speech2face/ast --set config.ast_weights={out}")
