"""The conversation with the Hub: what is there, one commit, a tag, and the download that proves it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import timm
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import get_session
from huggingface_hub.utils.sha import git_hash
from torch import nn

from ssl_backbones.cleanup import private_folder
from ssl_backbones.distributed import doing
from ssl_backbones.hub.publishing.refusals import PublishError, explaining
from ssl_backbones.models.backbone import weights_sha256

TIMEOUT = 20.0
"""Seconds that the Hub may be silent when it is asked something."""
TIMEOUT_SENDING = 300.0
"""Seconds that it may be silent when it was sent something large."""
TEMPORARY = {".gitattributes"}
"""Files that the Hub itself puts into a new repository."""


@dataclass(frozen=True)
class Request:
    """A request to publish: the repository, the tag, and who may see it."""

    repository: str
    tag: str
    private: bool = False
    gated: Literal["auto", "manual"] | None = None
    replace: bool = False
    """True to overwrite files of the same names in a repository that exists."""


@dataclass(frozen=True)
class There:
    """A repository as it is."""

    head: str | None
    private: bool
    files: dict[str, str] = field(default_factory=dict)
    """Name to the hash that git or LFS knows the content by."""
    tags: dict[str, str] = field(default_factory=dict)
    """Name to commit."""


def connect() -> HfApi:
    """The Hub at HF_ENDPOINT, with the token of this machine's login or of HF_TOKEN."""
    if constants.HF_HUB_OFFLINE:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be published: unset it, or keep the files with --out")
    token = get_token()
    if token is None:
        raise PublishError(
            "there is no access token, so nothing can be published: log in with `hf auth login`, or set HF_TOKEN to a "
            "token that may write"
        )
    wait_at_most(TIMEOUT)
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    with explaining("asking who the token belongs to", "nothing was published"):
        api.whoami()
    return api


def wait_at_most(seconds: float) -> None:
    """Have every request of this process fail once the Hub has said nothing for so long; on its own it never would."""
    get_session().timeout = seconds


def look(api: HfApi, repository: str) -> There | None:
    """The repository's content; None where there is none."""
    with explaining(f"looking at {repository}", "nothing was published"):
        try:
            info = api.model_info(repository, files_metadata=True, timeout=TIMEOUT)
        except RepositoryNotFoundError:
            return None
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repository).tags}
    files = {
        sibling.rfilename: sibling.lfs.sha256 if sibling.lfs else sibling.blob_id or ""
        for sibling in info.siblings or []
    }
    return There(info.sha, bool(info.private), files, tags)


def check_free(there: There, request: Request, folder: Path, files: Sequence[str]) -> bool:
    """True if all of it is there already. PublishError for what would be overwritten or shown too widely."""
    if request.private and not there.private:
        raise PublishError(
            f"{request.repository} is public, and --private was asked for: make it private on its page first, or "
            "publish under another name with --repo"
        )
    differing = [name for name in files if name in there.files and not same(folder / name, there.files[name])]
    others = sorted(there.files.keys() - set(files) - TEMPORARY)
    whole = not differing and all(name in there.files for name in files)
    if (differing or (others and not whole)) and not request.replace:
        what = f"another {differing[0]}" if differing else f"{others[0]}, which this run did not make"
        raise PublishError(
            f"{request.repository} holds {what}: publish under another name with --repo, or say --replace to overwrite "
            "it (its history keeps the old files)"
        )
    tagged = there.tags.get(request.tag)
    if tagged is not None and not (whole and tagged == there.head):
        raise PublishError(
            f"{request.repository} has a tag {request.tag} of something else (commit {tagged[:12]}): name another with "
            "--tag, as tags are not moved"
        )
    return whole


def same(path: Path, known: str) -> bool:
    """True for a file that git, or LFS, knows by this hash."""
    content = path.read_bytes()
    if len(known) == 64:
        return hashlib.sha256(content).hexdigest() == known
    return git_hash(content) == known


def publish(api: HfApi, request: Request, folder: Path, files: Sequence[str]) -> str:
    """Bring the files to the Hub in one commit, with a tag; the commit. What is there already is not sent again."""
    there = look(api, request.repository)
    whole = check_free(there, request, folder, files) if there else False
    if there is None:
        with explaining(f"making {request.repository}", "nothing was published"):
            api.create_repo(request.repository, private=request.private or None, exist_ok=False)
            there = There(None, request.private)
    if request.gated:
        with explaining(f"gating {request.repository}", "nothing but an empty repository is there"):
            api.update_repo_settings(request.repository, gated=request.gated)
    commit = there.head or ""
    if not whole:
        commit = send(api, request, folder, files, there.head)
    if request.tag not in there.tags:
        with explaining(f"tagging {request.repository}", "the files are there without their tag"):
            api.create_tag(request.repository, tag=request.tag, revision=commit, tag_message="Published and verified")
    return commit


def send(api: HfApi, request: Request, folder: Path, files: Sequence[str], head: str | None) -> str:
    """All files in one commit on top of what was looked at: together or not at all."""
    wait_at_most(TIMEOUT_SENDING)
    operations = [CommitOperationAdd(name, str(folder / name)) for name in files]
    sent = f"uploading to {request.repository}"
    with explaining(sent, "it is published whole or not at all"), doing(f"Uploading to {request.repository}"):
        made = api.create_commit(
            request.repository,
            operations,
            commit_message=f"Publish {request.tag}",
            parent_commit=head,
        )
    return str(made.oid)


def verify(api: HfApi, request: Request, commit: str, folder: Path, files: Sequence[str], backbone: nn.Module) -> None:
    """Download the tag into an empty cache, compare every byte, and have timm load it; PublishError for any difference.

    The tensors that timm gives are compared with those of the run, bit for bit.
    """
    left = "what is published there is not verified"
    fetched = f"downloading {request.repository}"
    with private_folder("verify-") as cache, explaining(fetched, left), doing(f"Comparing what was sent: {fetched}"):
        at_once = len(files) + len(TEMPORARY)  # so that tries again are waited for once, and not file by file
        place = Path(
            api.snapshot_download(request.repository, revision=request.tag, cache_dir=cache, max_workers=at_once)
        )
        if place.name != commit:
            raise PublishError(
                f"the tag {request.tag} of {request.repository} is commit {place.name[:12]} and not the {commit[:12]} "
                f"that was sent; {left}: publish again with another --tag"
            )
        for name in files:
            if not (place / name).is_file() or (place / name).read_bytes() != (folder / name).read_bytes():
                raise PublishError(
                    f"{name} came back from {request.repository} other than it was sent; {left}: do not use it, and "
                    "publish again with --replace and another --tag"
                )
        loaded = timm.create_model(f"hf-hub:{request.repository}@{commit}", pretrained=True, cache_dir=cache)
    if weights_sha256(loaded) != weights_sha256(backbone):
        raise PublishError(
            f"timm loads other weights from {request.repository} than the run's; {left}: do not use it, and report this"
        )
