"""Train, validation and test by identity, and the protocol that ties a checkpoint to its split.

A hash of (seed, identity) decides where an identity goes, so the split is the same in every process and on every
machine, and adding people moves nobody. The split of a row is kept in ``attributes["split"]``, how it was made in
``metadata["protocol"]``. People with the same (normalised) name go to the same side, whatever data set they are in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from crossmodal.data.manifest import Manifest, Row
from crossmodal.data.names import normalise_name
from crossmodal.errors import CheckpointError, DataError, LeakageError

RATIOS: dict[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split_key(row: Row) -> str:
    """What decides the side of a row: the joined identity, else the normalised name, else ``corpus/speaker``."""
    if "identity" in row.attributes:
        return row.identity
    name = normalise_name(row.attributes.get("name", ""))
    return f"name:{name}" if name else row.identity


def fraction(key: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone (SHA-256, not Python's salted hash)."""
    digest = hashlib.sha256(f"{seed}\x00{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def side(key: str, ratios: Mapping[str, float] = RATIOS, seed: int = 0) -> str:
    """The split ``key`` falls into."""
    place, reached = fraction(key, seed) * sum(ratios.values()), 0.0
    name = ""
    for name, share in ratios.items():  # noqa: B007 (rounding: the last one takes what is left)
        reached += share
        if place < reached:
            break
    return name


def assign(manifest: Manifest, *, ratios: Mapping[str, float] = RATIOS, seed: int = 0, name: str = "") -> Manifest:
    """Split by identity.

    Args:
        manifest: the rows; an older split is replaced.
        ratios: split → share; need not sum to one.
        seed: another seed, another split.
        name: of the protocol; default ``hash-<seed>``.

    Raises:
        DataError: no or negative ratios, or too few identities to fill every split.
    """
    if not ratios or any(share < 0 for share in ratios.values()) or sum(ratios.values()) <= 0:
        raise DataError(f"ratios {dict(ratios)} cannot be used", source="split", remedy="give positive shares")
    sides = {key: side(key, ratios, seed) for key in {split_key(row) for row in manifest}}
    empty = [part for part, share in ratios.items() if share > 0 and part not in sides.values()]
    if empty:
        raise DataError(
            f"{len(sides)} identities leave {', '.join(empty)} empty",
            source="split",
            remedy="use another seed, larger ratios or more people",
        )
    about = {"name": name or f"hash-{seed}", "seed": seed, "ratios": dict(ratios)}
    return _with_sides(manifest, sides, about)


def assign_from(manifest: Manifest, sides: Mapping[str, str], *, name: str) -> Manifest:
    """Use a published split.

    Args:
        manifest: the rows; those whose identity is not listed are left out.
        sides: :func:`split_key`, ``corpus/speaker``, speaker or normalised name → split.
        name: of the protocol, e.g. ``voxceleb1-901-100-250``.

    Raises:
        DataError: nothing in the manifest is listed.
        LeakageError: two listings put one identity on two sides.
    """
    found: dict[str, str] = {}
    for row in manifest:
        person = normalise_name(row.attributes.get("name", ""))
        places = {sides[k] for k in (split_key(row), f"{row.corpus}/{row.speaker}", row.speaker, person) if k in sides}
        places |= {found[split_key(row)]} if split_key(row) in found else set()
        if len(places) > 1:
            raise LeakageError(f"is listed under {' and '.join(sorted(places))}", source=split_key(row))
        if places:
            found[split_key(row)] = places.pop()
    if not found:
        raise DataError("lists no identity of the manifest", source=name, remedy="are the names written the same way?")
    return _with_sides(manifest.select(lambda row: split_key(row) in found), found, {"name": name})


def assign_parts(manifest: Manifest, parts: Mapping[str, str], *, name: str) -> Manifest:
    """Use the data set's own parts: ``{"dev": "train", "test": "test"}`` maps ``attributes["part"]`` to splits.

    Raises:
        DataError: no row has one of the parts.
        LeakageError: an identity is in parts that map to different splits.
    """
    kept = manifest.select(lambda row: row.attributes.get("part") in parts)
    if not len(kept):
        raise DataError(f"no rows of the parts {', '.join(parts)}", source=name)
    rows = [_with_split(row, parts[row.attributes["part"]]) for row in kept]
    checked = Manifest(rows, root=manifest.root, metadata=manifest.metadata)
    check_disjoint(checked)
    return _with_sides(checked, {split_key(row): row.attributes["split"] for row in rows}, {"name": name})


def part(manifest: Manifest, split: str) -> Manifest:
    """The rows of one split.

    Raises:
        DataError: the manifest is not split, or has no such split.
    """
    names = sorted({row.attributes["split"] for row in manifest if "split" in row.attributes})
    if split not in names:
        has = f"it has {', '.join(names)}" if names else "it is not split: use crossmodal.data.splits.assign"
        raise DataError(f"the manifest has no split '{split}'", source="manifest", remedy=has)
    return manifest.select(lambda row: row.attributes.get("split") == split)


def check_disjoint(*manifests: Manifest | Iterable[Row]) -> None:
    """See that no person is on two sides: of one split manifest, or of several manifests.

    Raises:
        LeakageError: names the first person found on two sides, and how many there are.
    """
    where: dict[str, set[str]] = {}
    single = len(manifests) == 1
    for number, manifest in enumerate(manifests):
        for row in manifest:
            place = row.attributes.get("split") if single else f"manifest {number + 1}"
            if place is not None:
                for key in {split_key(row), row.identity}:
                    where.setdefault(key, set()).add(place)
    overlap = sorted(key for key, places in where.items() if len(places) > 1)
    if overlap:
        raise LeakageError(
            f"is in {' and '.join(sorted(where[overlap[0]]))} ({len(overlap)} identities overlap)",
            source=overlap[0],
            remedy="split by identity: crossmodal.data.splits.assign",
        )


def protocol_fingerprint(manifest: Manifest) -> str:
    """16 hexadecimal digits that stand for who is on which side; other rows of the same people change nothing.

    A part of a split manifest keeps the fingerprint of the whole.

    Raises:
        DataError: the manifest is not split.
    """
    stored = manifest.metadata.get("protocol", {}).get("fingerprint")
    if stored:
        return str(stored)
    sides = {split_key(row): row.attributes["split"] for row in manifest if "split" in row.attributes}
    if not sides:
        raise DataError("is not split", source="manifest", remedy="use crossmodal.data.splits.assign")
    return _fingerprint(sides)


def protocol_record(manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint keeps of the rows it was trained on: protocol, fingerprint, and a digest of every identity.

    The digests let :func:`require_protocol` find leakage without writing people's names into a checkpoint.
    """
    return {
        "protocol": str(manifest.metadata.get("protocol", {}).get("name", "")),
        "fingerprint": protocol_fingerprint(manifest),
        "trained_on": sorted({_digest(split_key(row)) for row in manifest}),
    }


def require_protocol(record: Mapping[str, Any] | None, test: Manifest, *, source: object = "checkpoint") -> None:
    """See that a checkpoint may be tested on ``test``.

    Args:
        record: what :func:`protocol_record` gave when it was trained; ``None`` if it kept nothing.
        test: the rows it is to be tested on, of a split manifest.
        source: the checkpoint, for the message.

    Raises:
        CheckpointError: it keeps no record, or was trained under another protocol.
        LeakageError: it was trained on somebody in ``test``.
    """
    if not record or not record.get("fingerprint"):
        raise CheckpointError(
            "does not say which protocol it was trained under", source=source, remedy="train it on a split manifest"
        )
    fingerprint = protocol_fingerprint(test)
    if record["fingerprint"] != fingerprint:
        theirs = test.metadata.get("protocol", {}).get("name") or fingerprint
        ours = record.get("protocol") or record["fingerprint"]
        raise CheckpointError(
            f"was trained under protocol '{ours}' ({record['fingerprint']}), "
            f"the test list is of '{theirs}' ({fingerprint})",
            source=source,
            remedy="test it on its own protocol's list, or train again under this one",
        )
    trained = set(record.get("trained_on", ()))
    seen = sorted({split_key(row) for row in test if _digest(split_key(row)) in trained})
    if seen:
        raise LeakageError(f"was trained on {len(seen)} of the people in the test list, first {seen[0]}", source=source)


def _with_split(row: Row, split: str) -> Row:
    return dataclasses.replace(row, attributes={**row.attributes, "split": split})


def _with_sides(manifest: Manifest, sides: Mapping[str, str], about: dict[str, Any]) -> Manifest:
    """Rows marked with their side; the protocol counts identities and rows of each."""
    rows = [_with_split(row, sides[split_key(row)]) for row in manifest]
    check_disjoint(rows)
    used = {split_key(row): row.attributes["split"] for row in rows}
    counts = {
        split: {
            "identities": sum(s == split for s in used.values()),
            "rows": sum(row.attributes["split"] == split for row in rows),
        }
        for split in sorted(set(used.values()))
    }
    protocol = {**about, "fingerprint": _fingerprint(used), "counts": counts}
    return Manifest(rows, root=manifest.root, metadata={**manifest.metadata, "protocol": protocol})


def _fingerprint(sides: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(sides.items()), ensure_ascii=True).encode()).hexdigest()[:16]


def _digest(key: str) -> str:
    return hashlib.sha256(f"identity\x00{key}".encode()).hexdigest()[:16]
