"""May a bundle be tested on these people? Asked before every evaluation on prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.bundle import Bundle
from crossmodal.data import splits
from crossmodal.data.manifest import Manifest


def require(bundle: Bundle, tested: Manifest, run: str | Path | None = None) -> str:
    """Refuse a bundle that was trained on people who are to be tested, or under another protocol.

    The record is the run's, if one is given, else the bundle's own (exports of ``crossmodal train`` carry theirs).

    Args:
        bundle: what is tested.
        tested: the rows it is tested on.
        run: the run folder or checkpoint it comes from.

    Returns:
        a note: that it was checked, or that nothing is recorded.

    Raises:
        CheckpointError: trained under another protocol, or the run keeps no record.
        LeakageError: trained on somebody who is to be tested.
    """
    record: Mapping[str, Any] | None = bundle.protocol()
    source: object = bundle.folder
    if run is not None:
        from crossmodal.training.checkpoints import find

        checkpoint = find(run)
        record, source = checkpoint.state.get("protocol"), checkpoint.folder
    elif not record:
        return f"bundle '{bundle.info.name}' does not say whom it was trained on: leakage was not checked"
    splits.require_protocol(record, tested, source=source)
    return "leakage checked: the bundle was trained on none of the people tested"
