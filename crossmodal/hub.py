"""Bundles on the Hugging Face Hub: one repository with the bundle's files, its card as the repository's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.bundle import Bundle
from crossmodal.errors import BundleError, OutputError
from crossmodal.files import sha256


@dataclass(frozen=True)
class HubFile:
    """A file to send."""

    name: str
    bytes: int
    sha256: str


def plan(source: str | Path) -> tuple[Bundle, list[HubFile]]:
    """Verify a bundle and list what a push would send: ``bundle.yaml`` and the files that it lists, nothing else.

    Raises:
        BundleError: the bundle is damaged or has no card.
    """
    bundle = Bundle.open(source)
    bundle.verify()
    if "README.md" not in bundle.info.files:
        remedy = "write README.md: data, licences, measured figures, limits (BundleWriter.card)"
        raise BundleError("has no model card, and is not sent without", source=bundle.folder, remedy=remedy)
    listing = bundle.folder / "bundle.yaml"
    files = [HubFile("bundle.yaml", listing.stat().st_size, sha256(listing))]
    return bundle, files + [HubFile(name, entry.bytes, entry.sha256) for name, entry in bundle.info.files.items()]


def push(source: str | Path, repo: str, *, public: bool = False, message: str = "") -> str:
    """Verify a bundle and send it to the repository ``user/name``, which is made if it does not exist.

    Args:
        source: a bundle folder, or ``starter``.
        repo: ``user/name``.
        public: make or keep it public; otherwise it is private, and an existing public one is refused.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        BundleError: the bundle is damaged or has no card.
        OutputError: the name is no repository's, it is public already, or the hub refused or was not reached.
    """
    from huggingface_hub import HfApi

    check_name(repo)
    bundle, files = plan(source)
    api: Any = HfApi()
    try:
        api.create_repo(repo, repo_type="model", private=not public, exist_ok=True)
        if not public and not api.repo_info(repo, repo_type="model").private:
            remedy = "say --public if everyone may have it, or name another repository"
            raise OutputError("is public already", source=repo, remedy=remedy)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=bundle.folder,
            allow_patterns=[file.name for file in files],
            commit_message=message or f"{bundle.info.name} {bundle.info.version}",
        )
    except OutputError:
        raise
    except Exception as error:  # the hub's client raises classes of its own and of two HTTP libraries
        reason = " ".join(str(error).split())[:160]
        remedy = "check the network, and log in by `hf auth login`"
        raise OutputError(f"cannot be sent to the hub ({reason})", source=repo, remedy=remedy) from error
    return str(getattr(commit, "commit_url", commit))


def pull(repo: str, folder: str | Path) -> Path:
    """Fetch the bundle ``user/name[@revision]`` to ``folder``, whole and verified or not at all.

    Raises:
        BundleError: there is no such bundle, it cannot be had, or a file does not match its checksum.
        OutputError: ``folder`` exists.
    """
    check_name(repo.partition("@")[0])
    if Path(folder).exists():
        raise OutputError("exists already", source=folder, remedy="name a new folder")
    return Bundle.open(repo).export(folder)


def check_name(repo: str) -> None:
    """Raises:
    OutputError: ``repo`` is not of the form ``user/name``.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", repo):
        raise OutputError("is no name of a repository", source=repo, remedy="give user/name")
