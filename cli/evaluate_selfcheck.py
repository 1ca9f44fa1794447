"""``crossmodal evaluate selfcheck``: does a bundle work here as it did where its card was written?"""

from __future__ import annotations

import typer

from crossmodal.cli.common import BundleOption, Device, Json, Page, check_page, deliver, show_warnings


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def selfcheck(
        bundle: BundleOption = "starter",
        device: Device = "auto",
        page: Page = None,
        json: Json = False,
    ) -> None:
        """Draw and voice a dozen made-up people and read them back; needs no data, takes seconds.

        Compare the figures with the bundle's model card (`crossmodal models info --card`): equal to about 0.01, the
        bundle works here as it did there. They say little of quality, since nobody real takes part.
        """
        show_warnings(quiet=True)
        check_page(page)
        from crossmodal.evaluation.selfcheck import measure
        from crossmodal.face2speech import Face2Speech

        deliver(measure(Face2Speech.from_pretrained(bundle, device=device)), json=json, page=page)
