"""A model on this machine or on the hub: found, checked and named before anything of it is loaded.

Only safetensors and text files are ever downloaded or read: no pickle, no code. A path is never looked up on the hub,
and nothing that a model's own files name is fetched.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from editr1_plugins.errors import ConfigError

__all__ = ["ModelFolder", "find_adapter", "find_model", "split_spec"]

#: What a model consists of; everything else in a folder (optimizer states, training arguments) may be a pickle.
_SUFFIXES: Final = (".safetensors", ".json", ".jinja", ".txt", ".model")
_HUB_ID: Final = re.compile(r"[\w][\w.-]{0,95}(?:/[\w][\w.-]{0,95})?")
_SETTINGS: Final = ("adapter", "revision", "device", "dtype", "max_batch")
_MAX_REASON: Final = 300


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a model or an adapter.

    Attributes:
        path: where it lies.
        name: what it is, for records and cache keys: the hub id with its commit, or the folder's name with a digest of
            what the folder holds. Other weights, another name.
    """

    path: Path
    name: str


def find_model(model: str, revision: str | None = None) -> ModelFolder:
    """The folder of a model; a hub id is downloaded into the hub's cache first, if it is not there.

    Args:
        model: a folder, or a hub id (`Qwen/Qwen2.5-VL-7B-Instruct`).
        revision: branch, tag or commit of a hub id; default: its main branch.

    Raises:
        ConfigError: nothing of this name, or what is there is no model in safetensors.
    """
    folder = _find(model, revision, "model")
    if not (folder.path / "config.json").is_file() or (folder.path / "adapter_config.json").is_file():
        hint = ""
        if (folder.path / "adapter_config.json").is_file():
            hint = "; it holds an adapter: give the base model, and this as adapter="
        raise ConfigError(f"{model!r} is no model: need a config.json and no adapter_config.json{hint}")
    if not any(folder.path.glob("*.safetensors")):
        raise ConfigError(
            f"{model!r} has no .safetensors files; no other format is loaded. Save it anew as safetensors"
        )
    return folder


def find_adapter(adapter: str) -> ModelFolder:
    """The folder of a LoRA adapter, found as `find_model` finds models.

    Raises:
        ConfigError: nothing of this name, or what is there is no adapter in safetensors.
    """
    folder = _find(adapter, None, "adapter")
    for needed in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder.path / needed).is_file():
            raise ConfigError(f"{adapter!r} is no LoRA adapter in safetensors: it has no {needed}")
    return folder


def split_spec(argument: str) -> tuple[str, dict[str, Any]]:
    """Split `MODEL[?name=value[&name=value...]]` into the model and settings of `TransformersBackend`.

    The names are adapter, revision, device, dtype and max_batch; values may be percent-encoded.

    Raises:
        ConfigError: no model, or a setting that is unknown, blank or given twice.
    """
    model, _, query = argument.strip().partition("?")
    if not model:
        raise ConfigError("the spec names no model; write transformers:PATH_OR_ID[?adapter=PATH_OR_ID]")
    settings: dict[str, Any] = {}
    for setting in filter(None, query.split("&")):
        name, _, text = setting.partition("=")
        if name not in _SETTINGS or not text or name in settings:
            known = ", ".join(_SETTINGS)
            raise ConfigError(f"cannot read {setting!r} in the spec; write name=value, each name once, of: {known}")
        if name == "max_batch" and not text.isdecimal():
            raise ConfigError(f"max_batch in the spec must be a whole number, got {text!r}")
        settings[name] = int(text) if name == "max_batch" else unquote(text)
    return model, settings


def _find(name: str, revision: str | None, kind: str) -> ModelFolder:
    path = Path(name).expanduser()
    if name and path.is_dir():
        if revision is not None:
            raise ConfigError(f"{name!r} is a folder, and a folder has no revision")
        return ModelFolder(path.resolve(), f"{path.resolve().name}@{_digest(path)}")
    if not name or path.exists() or not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{kind} {name!r} is neither a folder on this machine nor a hub id (owner/name)")
    return _download(name, revision, kind)


def _download(hub_id: str, revision: str | None, kind: str) -> ModelFolder:
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=[f"*{suffix}" for suffix in _SUFFIXES],
            # Subfolders and consolidated files hold the same weights in other layouts.
            ignore_patterns=["*/*", "consolidated*"],
        )
    except Exception as error:  # the hub client has a dozen kinds: no such repository, no access, no network, full disk
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise ConfigError(
            f"{kind} {hub_id!r} is no folder here and could not be had from the hub: {type(error).__name__}: {reason}"
        ) from error
    return ModelFolder(Path(path), f"{hub_id}@{Path(path).name}")


def _digest(folder: Path) -> str:
    """Twelve hex digits over all bytes of the model: weights trained on under the same path are another model."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(_file_digest, files))
    total = hashlib.sha256()
    for path, digest in zip(files, digests, strict=True):
        total.update(path.name.encode() + b"\0" + digest)
    return total.hexdigest()[:12]


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.digest()
