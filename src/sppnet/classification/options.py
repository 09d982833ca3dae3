"""Options of a network and of its training by gradient descent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from sppnet.checking import check_number, check_one_of, check_whole, check_wholes
from sppnet.classification.checks import MAX_BINS, MAX_HIDDEN, MAX_LEVELS, MAX_WIDTH, SEEDS
from sppnet.errors import ArgumentError

__all__ = ["FROZEN_BACKBONE", "PRECISIONS", "GradientOptions", "NetworkOptions"]

FROZEN_BACKBONE = "efficientnet-lite0+stride32"
"""Default convolutions of a classifier."""

PRECISIONS = {"float32": None, "bf16": "bfloat16", "fp16": "float16"}
"""What torch calls the type of the products."""


@dataclass(frozen=True)
class NetworkOptions:
    """The network that is trained by gradient descent.

    Args:
        backbone: name of the convolutions, see :func:`~sppnet.backbones.registry.backbone_names`.
        weights: a weights file of your own for them, see :func:`~sppnet.backbones.registry.load_backbone`. None: the
            published weights.
        from_scratch: begin with random weights.
        levels: of the pyramid.
        pyramid: False pools with a fixed window instead, for comparison; training then has one size.
        mode: ``max`` or ``avg`` pooling.
        hidden: widths of the fully connected layers before the last.
        dropout: probability before each of them.

    Raises:
        ArgumentError: random weights and a weights file are both asked for, or a value is out of its range.
    """

    backbone: str = FROZEN_BACKBONE
    weights: str | os.PathLike[str] | None = None
    from_scratch: bool = False
    levels: tuple[int, ...] = (3, 2, 1)
    pyramid: bool = True
    mode: Literal["avg", "max"] = "max"
    hidden: tuple[int, ...] = (512,)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.from_scratch and self.weights is not None:
            raise ArgumentError(f"weights: got {os.fspath(self.weights)} with from_scratch=True; give one of them")
        for name, high, most in (("levels", MAX_BINS, MAX_LEVELS), ("hidden", MAX_WIDTH, MAX_HIDDEN)):
            numbers = check_wholes(name, getattr(self, name), 1, high, empty=name == "hidden")
            if len(numbers) > most:  # no model file would hold it
                raise ArgumentError(f"{name}: got {len(numbers)} of them, expected at most {most}")
            object.__setattr__(self, name, numbers)
        check_number("dropout", self.dropout, 0, 1)
        object.__setattr__(self, "dropout", float(self.dropout))
        check_one_of("mode", self.mode, ("avg", "max"))
        if not self.pyramid and (self.mode != "max" or self.levels != (3, 2, 1)):
            raise ArgumentError(
                f"pyramid: got False with mode {self.mode!r} and levels {self.levels}, but without a pyramid "
                "the maximum of a fixed window is taken; leave mode and levels out"
            )


@dataclass(frozen=True)
class GradientOptions:
    """Training of a network by gradient descent.

    Args:
        epochs: passes over the images.
        batch_size: images in a step, over all processes together.
        sizes_px: sides to which images are resized; one, or several (the paper: 224 and 180).
        size_choice: ``alternate``: in turn, one in each epoch. ``random``: any size between the smallest and the
            largest, for each batch.
        how: ``crop``: squares, the paper's augmentation. ``full``: whole images at about their own aspect, in batches
            of one aspect each (:func:`~sppnet.classification.multisize.aspects_of_groups`); needs a pyramid.
        learning_rate: highest, after ``warmup_epochs``; it falls to 0 as a cosine.
        momentum: of stochastic gradient descent.
        weight_decay: of the matrices and kernels.
        warmup_epochs: in which the learning rate rises.
        precision: ``float32``; or ``bf16`` or ``fp16`` for convolutions and matrix products (autocast). ``fp16`` needs
            CUDA.
        label_smoothing: of the cross-entropy.
        clip_norm: longer gradients are shortened to this length.
        seed: of everything that is random.

    Raises:
        ArgumentError: a value out of its range.
    """

    epochs: int = 30
    batch_size: int = 32
    sizes_px: tuple[int, ...] = (224, 180)
    size_choice: Literal["alternate", "random"] = "alternate"
    how: Literal["crop", "full"] = "crop"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    label_smoothing: float = 0.0
    clip_norm: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, 1 << 20))
        object.__setattr__(self, "sizes_px", check_wholes("sizes_px", self.sizes_px, 1, 1 << 14))
        object.__setattr__(self, "seed", check_whole("seed", self.seed, *SEEDS))
        for name, high in (("learning_rate", 1e38), ("clip_norm", 1e38)):
            check_number(name, getattr(self, name), 0, high)
            if not getattr(self, name):
                raise ArgumentError(f"{name}: got 0, with which nothing is learned; expected a positive number")
        for name, high in (("momentum", 1), ("label_smoothing", 1), ("weight_decay", 1e3), ("warmup_epochs", 1e6)):
            check_number(name, getattr(self, name), 0, high)
        for name in ("learning_rate", "momentum", "weight_decay", "warmup_epochs", "label_smoothing", "clip_norm"):
            object.__setattr__(self, name, float(getattr(self, name)))  # JSON holds no numbers of NumPy
        for name, known in (("size_choice", ("alternate", "random")), ("how", ("crop", "full")),
                            ("precision", tuple(PRECISIONS))):  # fmt: skip
            if getattr(self, name) not in known:
                raise ArgumentError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(known)}")
