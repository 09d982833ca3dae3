"""The classifier of the 1000 ImageNet classes: the head that comes with a backbone's published weights."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sppnet.backbones.engines.load import load_engine
from sppnet.backbones.engines.published import read_published
from sppnet.backbones.sources import DEFAULT_BACKBONE, SOURCES, find_checked
from sppnet.classification.networks import EngineNetwork
from sppnet.errors import ArgumentError

if TYPE_CHECKING:
    from sppnet.classification.classifier import SPPClassifier

__all__ = ["imagenet_class_names", "imagenet_classifier", "imagenet_engine"]


@cache
def imagenet_class_names() -> tuple[str, ...]:
    """List the 1000 classes of ILSVRC in their order.

    >>> names = imagenet_class_names()
    >>> len(names), names[0], names[967]
    (1000, 'tench', 'espresso')
    """
    text = (resources.files("sppnet.classification") / "imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def imagenet_engine(name: str = DEFAULT_BACKBONE) -> EngineNetwork:
    """Load what :func:`imagenet_classifier` loads, to run on the CPU without torch.

    Args:
        name: ``efficientnet-lite0`` or ``efficientnet-lite2``.

    Raises:
        ArgumentError: another name.
        WeightsError: the weights are missing or not the published ones.
    """
    _check_name(name)
    source = SOURCES[name]
    published = read_published(find_checked(source), source.sha256)
    layer = published["_fc.weight"].copy(), published["_fc.bias"].copy()
    return EngineNetwork(load_engine(f"{name}+head", "float32"), (1,), "avg", False, [layer])


def imagenet_classifier(name: str = DEFAULT_BACKBONE, path: Path | None = None) -> SPPClassifier:
    """Load an EfficientNet-Lite as published, with its own head, for images of any size.

    The mean over the head's feature map is pyramid pooling with the single level 1, so the network takes the whole
    image at its own aspect. At its native size it is the published network.

    Args:
        name: ``efficientnet-lite0`` or ``efficientnet-lite2``.
        path: of the weights file, where it isn't installed.

    Returns:
        The network, frozen.

    Raises:
        ArgumentError: another name.
        WeightsError: the weights are missing or not the published ones.
    """
    from sppnet.backbones.efficientnet_lite import EfficientNetLite, convert_state_dict
    from sppnet.backbones.registry import load_backbone
    from sppnet.backbones.weights import load_weights
    from sppnet.classification.classifier import SPPClassifier

    _check_name(name)
    network = EfficientNetLite(name)
    network.load_state_dict(convert_state_dict(load_weights(SOURCES[name], path)))
    if network.classifier is None:
        raise RuntimeError(f"{name} was built without its head")
    whole = SPPClassifier(load_backbone(f"{name}+head", path), (1,), 1000, mode="avg", hidden=())
    whole.set_last_layer(network.classifier.weight, network.classifier.bias)
    return whole.requires_grad_(False).eval()


def _check_name(name: str) -> None:
    known = [n for n in SOURCES if n.startswith("efficientnet-lite")]
    if name not in known:
        raise ArgumentError(f"name: got {name!r}, expected one with an ImageNet head: {', '.join(known)}")
