"""Fetch a hub model: weights as safetensors, config and tokenizer files, never code or pickles."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from huggingface_hub import HfApi, get_token, hf_hub_download, snapshot_download
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
from actshift.models.on_disk import (
    cache_variable,
    cached_snapshot,
    hub_cache,
    hub_settings,
    offline_variable,
)
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

    The variables of the hub library (docs/how-to/models.md) mean what they mean to it; they are
    read at the call, not at import. `revision` is a branch, tag or commit; None means `main`.
    Returns the snapshot folder in the hub cache and the 40-digit commit.

    Raises:
        UserError: gated, missing, unknown revision, not reachable and not cached, a cache that
            cannot be written, or a repository without safetensors. The line names the page to
            accept and the variable to set.
    """
    with _plain_errors(repo_id, revision, "model"):
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                cache_dir=hub_cache(),
                endpoint=hub_settings().ENDPOINT,
                local_files_only=offline(),
                allow_patterns=list(ALLOWED),
                ignore_patterns=list(IGNORED),
            )
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(_no_weights(_name(repo_id, revision), folder))
    return folder, folder.name


def fetch_data(
    repo_id: str, file: str, revision: str | None = None, *, key: str
) -> tuple[Path, str]:
    """Bring one file of a hub dataset to this disk, or find it there.

    `key` is the config key of the file, for the message. Returns `(path, commit)`.

    Raises:
        UserError: as for `fetch`, or no such file.
    """
    commit = resolve(repo_id, revision, repo_type="dataset")
    try:
        with _plain_errors(repo_id, commit, "dataset", key=key, file=file):
            path = hf_hub_download(
                repo_id,
                file,
                repo_type="dataset",
                revision=commit,
                cache_dir=hub_cache(),
                endpoint=hub_settings().ENDPOINT,
                local_files_only=offline(),
            )
    except EntryNotFoundError:
        tree = f"{page(repo_id, 'dataset')}/tree/{commit}"
        raise UserError(f"{key}.file: no '{file}' in {repo_id}; see {tree}") from None
    return Path(path), commit


def resolve(repo_id: str, revision: str | None = None, *, repo_type: RepoType = "model") -> str:
    """The 40-digit commit that a branch, tag or commit of a hub repository stands for now.

    Offline, the answer comes from the local cache.

    Raises:
        UserError: as for `fetch`.
    """
    if offline():
        folder = cached_snapshot(repo_id, revision, repo_type=repo_type)
        if folder is None:
            raise UserError(_not_cached(f"hub {repo_type} {_name(repo_id, revision)}"))
        return folder.name
    with _plain_errors(repo_id, revision, repo_type):
        api = HfApi(endpoint=hub_settings().ENDPOINT)
        sha = api.repo_info(repo_id, revision=revision, repo_type=repo_type).sha
    if sha is None:
        raise UserError(f"hub {repo_type} {_name(repo_id, revision)}: the hub named no commit")
    return sha


def offline() -> bool:
    """Whether the environment asks to stay off the network (`HF_HUB_OFFLINE`)."""
    return hub_settings().HF_HUB_OFFLINE


def has_token() -> bool:
    """Whether the hub library finds a token (its value is never read out)."""
    return get_token() is not None


def page(repo_id: str, repo_type: RepoType = "model") -> str:
    """Address of a repository's page, where its terms are accepted."""
    prefix = "datasets/" if repo_type == "dataset" else ""
    return f"{hub_settings().ENDPOINT}/{prefix}{repo_id}"


def _no_weights(name: str, folder: Path) -> str:
    if offline():
        # The library takes a part of a repository for all of it.
        return (
            f"hub model {name} is in the cache without its weights ({folder}) and "
            f"{offline_variable()} is set: unset it, or fetch the model on a machine with network"
        )
    return (
        f"hub model {name} has no safetensors weights (pickled weights and GGUF files are never "
        "read): pick a revision that has them, or convert it and give the folder's path"
    )


def _name(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision or 'main'}"


def _not_cached(what: str) -> str:
    return (
        f"{what} is not in the cache ({hub_cache()}) and {offline_variable()} is set: unset it, or "
        f"fetch it on a machine with network and set {cache_variable()}"
    )


def _token_advice() -> str:
    if has_token():
        return "with the account of the token in use (HF_TOKEN)"
    return "and set HF_TOKEN to a read token of your account (no token is set)"


def _check_endpoint() -> None:
    """Refuse an address of a hub that the HTTP client would call a failure of the network."""
    endpoint = hub_settings().ENDPOINT
    if not endpoint.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT: '{endpoint}' is no address; it begins with https://")


@contextmanager
def _plain_errors(
    repo_id: str, revision: str | None, repo_type: RepoType, *, key: str = "", file: str = ""
) -> Iterator[None]:
    """Turn what the hub library raises into one line that says what to do.

    `key` is the config key of a file, put in front; a `file` that the repository lacks is left to
    the caller.
    """
    where = page(repo_id, repo_type)
    what = f"{key}: " * bool(key) + f"hub {repo_type} {_name(repo_id, revision)}"
    _check_endpoint()
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
        if file and isinstance(error, EntryNotFoundError):
            raise
        status = error.response.status_code
        raise UserError(f"{what}: the hub answered {status}; {_advice(status, where)}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, _TransportError, OSError) as error:
        part = f"{what}: '{file}'" if file else what
        raise UserError(_why_absent(error, part)) from None


def _advice(status: int, where: str) -> str:
    """What to do about a status of the hub that the library has no name for."""
    if status in (401, 403):
        return f"it may not be read: see {where} {_token_advice()}"
    if status == 429:
        return f"too many requests: wait some minutes and run again, {_token_advice()}"
    return f"try again, see {where}" if status >= 500 else f"see {where}"


def _why_absent(error: Exception, what: str) -> str:
    """Why something is neither in the cache nor was brought there."""
    chain = [error]
    while nearer := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cast(Exception, nearer))
    # The library wraps the client's errors in one that says that the file is not in the cache.
    network = [cause for cause in chain if isinstance(cause, _TransportError)]
    missing = isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled))
    if missing and offline():
        return _not_cached(what)
    if network or missing:
        cause = network[-1] if network else chain[-1]
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:160]
        return (
            f"{what}: the hub cannot be reached ({reason}) and the cache ({hub_cache()}) does not "
            f"hold all of it: check the network, or set {cache_variable()}"
        )
    # What is left comes from the file system, whatever its number: a folder below /proc is "not
    # there", one below a file is "no directory".
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"{what} is not whole in the cache and cannot be written there "
        f"({getattr(error, 'filename', None) or hub_cache()}: {reason}): set {cache_variable()} to "
        "a folder with room that can be written"
    )
