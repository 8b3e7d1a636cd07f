"""One file of a repository of the Hugging Face hub, and one sentence where there is none."""

from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from gear.store.foreign import first_line


class HubError(ValueError):
    """Why a file could not be had from the hub."""


def fetched(
    repository: str,
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The file `name` of `repository`, OWNER/NAME, from the cache or the hub. Arguments as of `hf_hub_download`.

    Raises `HubError`, at once for a name that is none, and without a connection after one try, where huggingface_hub
    tries for half a minute.
    """
    where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
    try:
        validate_repo_id(repository)
        if not local_files_only and not isinstance(try_to_load_from_cache(repository, name, **where), str):
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), token=token)
        options = {"force_download": force_download, "local_files_only": local_files_only, "token": token}
        return Path(hf_hub_download(repository, name, **where, **options))
    except HFValidationError:
        raise HubError(f"{repository} is no name of a repository (OWNER/NAME) either") from None
    except GatedRepoError as error:
        raise HubError(
            f"the hub's repository {repository} must be asked for: do so on its page, log in by `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"the hub has no repository {repository} that can be seen from here (for a private one, `hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"the hub's repository {repository} has no revision {revision}") from error
    except RemoteEntryNotFoundError as error:
        raise HubError(f"the hub's repository {repository} has no {name}") from error
    except (
        Exception
    ) as error:  # of whatever HTTP library huggingface_hub uses, which changes: they have no base of its own
        offline = local_files_only or constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled)
        why = "this is offline (HF_HUB_OFFLINE or local_files_only)" if offline else first_line(error)
        raise HubError(f"{name} of {repository} could not be had from the hub, {constants.ENDPOINT}: {why}") from error
