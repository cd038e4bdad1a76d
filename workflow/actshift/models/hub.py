"""Fetch a hub model: weights as safetensors, config and tokenizer files, never code or pickles."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from huggingface_hub import HfApi, constants, get_token, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from actshift.errors import UserError
from actshift.models.hub_cache import hub_cache
from actshift.models.sources import CONFIG_FILES, TOKENIZER_FILES

#: Base error of the HTTP client under the hub library; which client differs between its releases.
_TransportError = cast(type[Exception], HfHubHTTPError.__mro__[1])

RepoType = Literal["model", "dataset"]

#: Anything else in a repository is never downloaded: no pickles, no code.
ALLOWED = (
    *CONFIG_FILES,
    *TOKENIZER_FILES,
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
#: `consolidated*` is a second copy of the weights in the vendor's own format.
IGNORED = ("consolidated*", "*/*")


def fetch(repo_id: str, revision: str | None = None) -> tuple[Path, str]:
    """Bring a hub model to this disk, or find it there.

    `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean
    to the hub library; they are read at the call, not at import.

    Args:
        repo_id: `org/name`.
        revision: branch, tag or commit; None means `main`.

    Returns:
        `(folder, commit)`: the snapshot folder in the hub cache and the 40-digit commit.

    Raises:
        UserError: gated, missing, unknown revision, not reachable and not cached, or a repository
            without safetensors. The line names the page to accept and the variable to set.
    """
    with _told(repo_id, revision, "model"):
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                cache_dir=hub_cache(),
                endpoint=os.environ.get("HF_ENDPOINT"),
                local_files_only=offline(),
                allow_patterns=list(ALLOWED),
                ignore_patterns=list(IGNORED),
            )
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"hub model {_name(repo_id, revision)} has no safetensors weights (pickled weights are "
            "never loaded): pick a revision that has them, or convert it and give the folder's path"
        )
    return folder, folder.name


def fetch_data(
    repo_id: str, file: str, revision: str | None = None, *, key: str
) -> tuple[Path, str]:
    """Bring one file of a hub dataset to this disk, or find it there.

    Args:
        repo_id: `org/name`.
        file: Its name in the repository.
        revision: branch, tag or commit; None means `main`.
        key: Config key of the file, for the message.

    Returns:
        `(path, commit)`.

    Raises:
        UserError: as for `fetch`, or no such file.
    """
    commit = resolve(repo_id, revision, repo_type="dataset")
    what, where = f"{key}: hub dataset {repo_id}", page(repo_id, "dataset")
    try:
        path = hf_hub_download(
            repo_id,
            file,
            repo_type="dataset",
            revision=commit,
            cache_dir=hub_cache(),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except GatedRepoError:
        token = "with the account of HF_TOKEN" if has_token() else "and set HF_TOKEN"
        raise UserError(f"{what} is gated: accept its terms at {where} {token}") from None
    except HfHubHTTPError as error:
        if isinstance(error, EntryNotFoundError):
            raise UserError(
                f"{key}.file: no '{file}' in {repo_id}; see {where}/tree/main"
            ) from None
        status = error.response.status_code
        raise UserError(f"{what}: the hub answered {status}; try again, see {where}") from None
    except (EntryNotFoundError, OSError) as error:
        raise UserError(
            f"{what}: '{file}' at {commit[:12]} is not in the cache ({hub_cache()}) and cannot be "
            f"fetched ({type(error).__name__}): check the network, HF_HUB_OFFLINE and HF_HOME"
        ) from None
    return Path(path), commit


def resolve(repo_id: str, revision: str | None = None, *, repo_type: RepoType = "model") -> str:
    """The commit that a branch, tag or commit of a hub repository stands for now.

    Offline, the answer comes from the local cache.

    Args:
        repo_id: `org/name`.
        revision: branch, tag or commit; None means `main`.
        repo_type: `model` or `dataset`.

    Returns:
        The 40-digit commit.

    Raises:
        UserError: as for `fetch`.
    """
    if offline():
        return _cached_commit(repo_id, revision, repo_type)
    with _told(repo_id, revision, repo_type):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        sha = api.repo_info(repo_id, revision=revision, repo_type=repo_type).sha
    if sha is None:
        raise UserError(f"hub {repo_type} {_name(repo_id, revision)}: the hub named no commit")
    return sha


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` asks to stay off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def has_token() -> bool:
    """Whether the hub library finds a token (its value is never read out)."""
    return get_token() is not None


def page(repo_id: str, repo_type: RepoType = "model") -> str:
    """Address of a repository's page, where its terms are accepted."""
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    prefix = "datasets/" if repo_type == "dataset" else ""
    return f"{endpoint}/{prefix}{repo_id}"


def _cached_commit(repo_id: str, revision: str | None, repo_type: RepoType) -> str:
    repo = hub_cache() / f"{repo_type}s--{repo_id.replace('/', '--')}"
    wanted = revision or "main"
    ref = repo / "refs" / wanted
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
    if not (repo / "snapshots" / commit).is_dir():
        raise UserError(_not_cached(repo_id, revision, repo_type))
    return commit


def _name(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision or 'main'}"


def _not_cached(repo_id: str, revision: str | None, repo_type: RepoType) -> str:
    return (
        f"hub {repo_type} {_name(repo_id, revision)} is not in the cache ({hub_cache()}) and "
        "HF_HUB_OFFLINE is set: unset it, or fetch it on a machine with network and set HF_HOME"
    )


def _token_advice() -> str:
    if has_token():
        return "with the account of the token in use (HF_TOKEN)"
    return "and set HF_TOKEN to a read token of your account (no token is set)"


@contextmanager
def _told(repo_id: str, revision: str | None, repo_type: RepoType) -> Iterator[None]:
    """Turn what the hub library raises into one line that says what to do."""
    what, where = f"hub {repo_type} {_name(repo_id, revision)}", page(repo_id, repo_type)
    try:
        yield
    except GatedRepoError:
        raise UserError(f"{what} is gated: accept its terms at {where} {_token_advice()}") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{what} does not exist or is private: check the id at {where}, {_token_advice()}"
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{what}: no such revision; branches, tags and commits are listed at {where}"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{what}: {str(error).splitlines()[0]}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UserError(f"{what}: the hub answered {status}; try again, see {where}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, _TransportError) as error:
        if offline():
            raise UserError(_not_cached(repo_id, revision, repo_type)) from None
        cause = type(error.__cause__ or error).__name__
        raise UserError(
            f"{what}: the hub cannot be reached ({cause}) and the cache ({hub_cache()}) does not "
            "hold all of it: check the network, or set HF_HOME"
        ) from None
