"""Pushes a trained folder to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import validate_repo_id
from requests import RequestException

from ultra_light_predictor import FP32_GRAPH, INT8_GRAPH
from ultralight.model_card import is_generated, make_card, write_card
from ultralight.model_folder import CARD, add_companions, files_to_push, read_config
from ultralight.problems import CheckError, InputError
from ultralight.schema import LabelSchema

logger = logging.getLogger(__name__)

NOT_LOGGED_IN = "you are not logged in (`hf auth login`, or set HF_TOKEN to a token that may write)"
REASONS = {
    401: "the Hub does not know your token (`hf auth login`, or set HF_TOKEN to a token that may write)",
    403: "your token may not write there",
    404: "the Hub has no such user or organisation, or hides it from you",
    413: "the Hub finds it too large",
    429: "the Hub is asked too often; wait a little",
}


class PushError(CheckError):
    """The folder is not on the Hub; nothing of it is lost, and the message says how to push it later."""


def push_folder(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Pushes what `files_to_push` names, the card and the labels file made up to date before.

    Graphs that the repository holds and the folder does not are removed there: they belong to weights that are replaced.

    Args:
        folder: what training wrote.
        repo_id: such as "someone/model", or "model" for the account that is logged in; made if it does not exist.
        private: make the repository private.

    Returns:
        The address of the commit.

    Raises:
        InputError: the folder holds no trained model, or `repo_id` is no name that the Hub could know.
        PushError: not logged in, offline, not allowed there, or refused by the Hub.
    """
    folder = Path(folder)
    check_repo_id(repo_id)
    files_to_push(folder)
    labels: Any = read_config(folder).label_schema
    add_companions(folder, LabelSchema.from_dict(dict(labels), str(folder)))
    try:
        if get_token() is None:
            raise PushError(NOT_LOGGED_IN)
        return _push(HfApi(), folder, repo_id, private)
    except InputError:
        raise
    except (HfHubHTTPError, RequestException, OSError, RuntimeError, ValueError) as error:
        raise PushError(
            f"{folder}: not pushed to {repo_id}, {_reason(error)}.\nNothing is lost: the folder is complete. Push it later with\n  "
            f"{push_command(folder, repo_id, private)}"
        ) from error


def push_command(folder: Path, repo_id: str, private: bool) -> str:
    """The command that pushes a finished folder."""
    words = ["python", "export.py", "--model", str(folder), "--push_to_hub", repo_id, *(["--private"] if private else []), "--push_only"]
    return shlex.join(words)


def warn_if_logged_out() -> None:
    """Says before a long run, not only after it, what a push will need."""
    if get_token() is None:
        logger.warning("%s: the trained folder will be kept, but not pushed", NOT_LOGGED_IN)


def check_repo_id(repo_id: str) -> None:
    """Raises an InputError where `repo_id` is no name that the Hub could know."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is no name of a repository on the Hub ({error}); accepted: a name such as someone/model") from None


def _push(api: HfApi, folder: Path, repo_id: str, private: bool) -> str:
    # None leaves it to the organisation, which may make new repositories private by itself.
    repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
    if private and not api.model_info(repo_id).private:
        raise PushError(f"{repo_id} exists and is public: make it private in its settings first, or choose another name")
    additions = _additions(folder, repo_id)
    named = {operation.path_in_repo for operation in additions}
    stale = [graph.as_posix() for graph in (FP32_GRAPH, INT8_GRAPH) if graph.as_posix() not in named]
    there = set(api.list_repo_files(repo_id)) if stale else set()
    deletions = [CommitOperationDelete(graph) for graph in stale if graph in there]
    commit = api.create_commit(repo_id, [*additions, *deletions], commit_message="Model, card and code, by UltraLight")
    if (folder / CARD).exists() and is_generated((folder / CARD).read_text(encoding="utf-8")):
        write_card(folder, repo_id)
    return str(commit.commit_url)


def _additions(folder: Path, repo_id: str) -> list[CommitOperationAdd]:
    files = [CommitOperationAdd(name, folder / name) for name in files_to_push(folder) if name != CARD]
    return [CommitOperationAdd(CARD, _card(folder, repo_id)), *files]


def _card(folder: Path, repo_id: str) -> bytes:
    """The folder's README where somebody wrote a model card there; else a generated one, for this name on the Hub."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if is_generated(text) or not text:
        return make_card(folder, repo_id).encode()
    if REGEX_YAML_BLOCK.search(text):
        return text.encode()
    logger.warning("%s has no metadata of a model card: a generated card is pushed in its stead", path)
    return make_card(folder, repo_id).encode()


def _reason(error: Exception) -> str:
    if isinstance(error, PushError):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        said = error.server_message or str(error).strip().splitlines()[0]
        status = error.response.status_code
        return f"{REASONS[status]}: {said}" if status in REASONS else f"the Hub answers {status}: {said}"
    if isinstance(error, (RequestException, ConnectionError)):
        return f"the Hub cannot be reached ({type(error).__name__})"
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return f"{error}{cause}".strip().rstrip(".")
