"""A network's folder on Hugging Face: put there by the package huggingface_hub, with the token that it knows."""

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from shconv.arguments import checked
from shconv.errors import InputError, first_line
from shconv.pretrained.folder import CARD, REPOSITORY, load_network, save_pretrained
from shconv.training.checkpoint import CONFIG, MODEL


@checked
def push_to_hub(network: nn.Module | str | Path, repo_id: str, *, private: bool | None = None, **settings: Any) -> str:
    """Upload a network, or the folder of one, and give the commit's address; the repository is made if need be.

    Args:
        network: a folder that save_pretrained or shconv finetune wrote, as it is; one of shconv train, with a model
            card and without this machine's paths; or a network, for save_pretrained.
        repo_id: OWNER/NAME.
        private: of a new repository; None: as the owner's settings say.
        settings: save_pretrained's, for a network.

    Raises:
        InputError: no such folder, no OWNER/NAME, no package huggingface_hub, no token, no connection, no permission.
    """
    check_hub(repo_id)
    if isinstance(network, nn.Module):
        with tempfile.TemporaryDirectory() as made:
            return push_to_hub(save_pretrained(network, made, **settings), repo_id, private=private)
    folder = Path(network)
    if lacking := [name for name in (MODEL, CONFIG) if not (folder / name).is_file()]:
        raise InputError(f"{folder} holds no network to push: there is no {' and no '.join(lacking)}")
    if not (folder / CARD).is_file():
        model, config, info = load_network(folder)
        return push_to_hub(model, repo_id, private=private, config=config, facts=info)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=[MODEL, CONFIG, CARD], commit_message="Upload by shconv"
        )
    except Exception as error:  # of its HTTP library, which differs between versions
        raise InputError(f"Hugging Face did not take {repo_id} ({first_line(error, 200)})") from error
    return str(done.commit_url)


def check_hub(repo_id: str) -> None:
    """Raises InputError where nothing could be pushed: no OWNER/NAME, no package huggingface_hub, no token."""
    if not REPOSITORY.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is no repository name; wanted: OWNER/NAME")
    try:
        from huggingface_hub import get_token
    except ImportError as error:
        raise InputError("push_to_hub needs the package huggingface_hub: pip install huggingface_hub") from error
    if get_token() is None:
        raise InputError("there is no token for Hugging Face: run `hf auth login`, or set HF_TOKEN")
