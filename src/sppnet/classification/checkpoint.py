"""Checkpoints of a training by gradient descent: what changes while it runs, in one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from sppnet.classification.classifier import SPPClassifier
from sppnet.datasets.folder import ImageFolder
from sppnet.errors import ModelFileError
from sppnet.storage.envelope import read_envelope, write_envelope
from sppnet.storage.tensors import to_arrays, to_tensors

__all__ = ["TrainingState", "identity_of"]

_KIND, _VERSION = "sppnet-training", 1


@dataclass
class TrainingState:
    """What changes while a network is trained, and what that depends on.

    Attributes:
        network: that is trained.
        optimizer: with the momentum of each parameter.
        scaler: of gradients in half precision.
        trained: names and parameters that are trained.
        identity: everything that the result depends on; a checkpoint with another one is refused.
    """

    network: SPPClassifier
    optimizer: torch.optim.SGD
    scaler: Any
    trained: list[tuple[str, nn.Parameter]]
    identity: dict[str, Any]

    def save(self, path: str | os.PathLike[str], history: list[dict[str, float]]) -> None:
        """Write the state after an epoch.

        Args:
            path: of the checkpoint.
            history: figures of the epochs that are done.

        Raises:
            OutputError: it can't be written.
        """
        tensors = {f"network.{n}": t for n, t in self.network.state_dict().items()}
        for name, parameter in self.trained:
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        metadata = {"identity": self.identity, "history": history, "scaler": self.scaler.state_dict()}
        write_envelope(path, to_arrays(tensors), metadata, _KIND, _VERSION)

    def resume(self, path: str | os.PathLike[str]) -> list[dict[str, float]]:
        """Load the state of a stopped training.

        Args:
            path: of the checkpoint.

        Returns:
            Figures of the epochs that are done; empty where there is no file.

        Raises:
            ModelFileError: the checkpoint is of another network, of other options or images, or damaged.
        """
        if not Path(path).exists():
            return []
        found = read_envelope(path, _KIND, _VERSION, "a checkpoint of a training")
        tensors, metadata = to_tensors(found.arrays), found.metadata
        mine, stored = json.loads(json.dumps(self.identity)), metadata.get("identity", {})
        history = metadata.get("history")
        if not isinstance(stored, dict) or not _is_history(history):
            raise ModelFileError(f"{os.fspath(path)}: is no checkpoint of a training; remove it to begin anew")
        for key, value in mine.items():
            if stored.get(key) != value:
                raise ModelFileError(
                    f"{os.fspath(path)}: the stopped training had {key} = {stored.get(key)!r}, now it is {value!r}; "
                    "give the same data and options, or remove the file to begin anew"
                )
        try:
            self.network.load_state_dict(
                {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
            )
            for name, parameter in self.trained:
                buffer = tensors.get(f"momentum.{name}")
                if buffer is not None:
                    self.optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device).view_as(parameter)
            if self.scaler.is_enabled() and metadata.get("scaler"):
                self.scaler.load_state_dict(metadata["scaler"])
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(f"{os.fspath(path)}: is of another network, or damaged ({error})") from None
        return history


def _is_history(value: object) -> TypeGuard[list[dict[str, float]]]:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and all(isinstance(figure, int | float) for figure in entry.values()) for entry in value
    )


def identity_of(network: SPPClassifier, data: ImageFolder) -> dict[str, Any]:
    """List what the result of a training depends on, besides its options.

    Args:
        network: that is trained.
        data: images that it is trained on.

    Returns:
        Values that JSON can hold.
    """
    bone = network.backbone
    return {
        "backbone": bone.name,
        "weights": bone.weights_sha256,
        "trainable": bone.trainable,
        "pooling": str(network.pool),
        "hidden": list(network.hidden),
        "dropout": network.dropout,
        "normalise": network.normalise,
        "images": f"{len(data)} of {len(data.class_names)} classes, sha256 of their names {data.sha256()[:16]}",
    }
