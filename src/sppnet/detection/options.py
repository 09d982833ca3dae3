"""Options of the detector that belong together. Each group is checked when it is made and never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sppnet.checking import check_number, check_one_of, check_whole, check_wholes
from sppnet.errors import ArgumentError

__all__ = [
    "SCALING_IMAGES",
    "FeatureOptions",
    "FinetuneOptions",
    "HeadOptions",
    "SuppressionOptions",
    "SvmOptions",
    "TuningOptions",
]

SCALING_IMAGES = 256
"""Images at most, from whose windows the scale of a layer's inputs is taken."""


@dataclass(frozen=True)
class FeatureOptions:
    """How windows become vectors: convolutions, scales and the pyramid.

    Args:
        method: ``spp``: the convolutions run once over the image. ``rcnn``: once for each window, cut out and warped
            (the baseline that the paper compares with).
        levels: of the pyramid. A window becomes ``channels * sum(n * n for n in levels)`` numbers.
        short_sides_px: scales at which the convolutions run. A window uses the one where its area is nearest to
            224 x 224 pixels (paper, section 4.2).
        flip_short_sides_px: scales of the mirror images in training. Empty trains without mirror images.
        precision: of the convolutions and the maps. ``int8``: quantised, about twice as fast, on the CPU and for the
            backbones that have quantised layers (EfficientNet-Lite); all others run in float32. ``float32``: always.
        mirror: each window is also looked at in the mirror image; scores and box deltas are the means of both. It finds
            more, and everything but the proposals takes twice as long. Only use is changed, not training.

    Raises:
        ArgumentError: a value out of its range.
    """

    method: Literal["spp", "rcnn"] = "spp"
    levels: tuple[int, ...] = (4, 2, 1)
    short_sides_px: tuple[int, ...] = (352, 608)
    flip_short_sides_px: tuple[int, ...] = (296, 512)
    precision: Literal["int8", "float32"] = "int8"
    mirror: bool = False

    def __post_init__(self) -> None:
        """Check every value; sequences become tuples."""
        check_one_of("method", self.method, ("spp", "rcnn"))
        object.__setattr__(self, "levels", check_wholes("levels", self.levels, 1, 64))
        object.__setattr__(self, "short_sides_px", check_wholes("short_sides_px", self.short_sides_px, 16, 8192))
        flip = check_wholes("flip_short_sides_px", self.flip_short_sides_px, 16, 8192, empty=True)
        object.__setattr__(self, "flip_short_sides_px", flip)
        check_one_of("precision", self.precision, ("int8", "float32"))
        check_one_of("mirror", self.mirror, (False, True))


@dataclass(frozen=True)
class HeadOptions:
    """What stands behind the pooling: fully connected layers, classifier and box regression.

    Args:
        rank: the first fully connected layer is the product of two matrices with this inner dimension.
        hidden: width of the fully connected layers. 0: there is none, and SVMs and ridge regression see the pooled
            windows along their first ``rank`` principal components (the paper's pool5 row).
        dropout: share of the units that is dropped in training, in [0, 1).
        layers: 1, or 2 for a second fully connected layer (the paper's fc7).
        classifier: ``softmax``: the log odds of each class against background, trained with the fully connected layer.
            ``svm`` (the paper's): linear SVMs with hard negatives on its features.
        box_regression: ``joint``: trained with the fully connected layer. ``ridge`` (the paper's): in closed form after
            it.

    Raises:
        ArgumentError: a value out of its range, or ``hidden`` 0 without SVMs and ridge regression.
    """

    rank: int = 256
    hidden: int = 1024
    dropout: float = 0.5
    layers: int = 1
    classifier: Literal["softmax", "svm"] = "softmax"
    box_regression: Literal["joint", "ridge"] = "joint"

    def __post_init__(self) -> None:
        """Check every value."""
        check_whole("rank", self.rank, 1, 1 << 16)
        check_whole("hidden", self.hidden, 0, 1 << 16)
        check_number("dropout", self.dropout, 0, 1)
        if self.dropout == 1:
            raise ArgumentError("dropout: got 1, which drops every unit; expected a share in [0, 1)")
        check_one_of("layers", self.layers, (1, 2))
        check_one_of("classifier", self.classifier, ("softmax", "svm"))
        check_one_of("box_regression", self.box_regression, ("joint", "ridge"))
        if not self.hidden and (self.classifier, self.box_regression) != ("svm", "ridge"):
            raise ArgumentError(
                f"hidden: got 0 (no fully connected layer) with classifier={self.classifier!r} and box_regression="
                f"{self.box_regression!r}, which are trained with that layer; expected 'svm' and 'ridge'"
            )


@dataclass(frozen=True)
class SuppressionOptions:
    """From scored windows to detections.

    Args:
        nms_iou: a box that overlaps a better one of its class by more is dropped, in [0, 1]. The paper uses 0.3, with
            ``soft_sigma`` 0.
        soft_sigma: above 0, each better box that overlaps one less multiplies its score by
            ``exp(-iou ** 2 / soft_sigma)`` (soft non-maximum suppression, Bodla et al., 2017). 0 turns it off.
        refinements: so often the most probable regressed boxes are pooled, scored and regressed again, in [0, 10]
            (iterative localisation, Gidaris and Komodakis, 2015).
        box_voting: a detection's box is the mean of all boxes of its class that overlap it, weighted by score.

    Raises:
        ArgumentError: a value out of its range.
    """

    nms_iou: float = 0.5
    soft_sigma: float = 0.3
    refinements: int = 3
    box_voting: bool = True

    def __post_init__(self) -> None:
        """Check every value."""
        check_number("nms_iou", self.nms_iou, 0, 1)
        check_number("soft_sigma", self.soft_sigma, 0, 1)
        check_whole("refinements", self.refinements, 0, 10)
        check_one_of("box_voting", self.box_voting, (False, True))


@dataclass(frozen=True)
class FinetuneOptions:
    """How the fully connected layers are trained.

    Args:
        epochs: passes over all images and their mirror images.
        images_per_batch: images that a mini-batch is drawn from.
        windows_per_image: windows drawn from each of them.
        foreground_share: at most this share of the windows overlaps an object (IoU >= 0.5).
        learning_rate: the highest of the one-cycle schedule.
        weight_decay: of AdamW.

    Raises:
        ArgumentError: a value out of its range.
    """

    epochs: int = 6
    images_per_batch: int = 8
    windows_per_image: int = 64
    foreground_share: float = 0.25
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("epochs", "images_per_batch", "windows_per_image"):
            check_whole(name, getattr(self, name), 1, 1 << 20)
        check_number("foreground_share", self.foreground_share, 0, 1)
        check_number("learning_rate", self.learning_rate, 0, 1e3)
        check_number("weight_decay", self.weight_decay, 0, 1e3)


@dataclass(frozen=True)
class TuningOptions:
    """How the last convolutions are trained together with the layers behind the pooling, after these alone.

    The paper leaves the convolutions as they are (section 4.2); fast R-CNN (Girshick, 2015) trains them through the
    pooling.

    Args:
        blocks: how many of the last blocks are trained.
        epochs: passes over all images.
        images_per_batch: images of a step.
        windows_per_image: windows drawn from each of them.
        foreground_share: at most this share of the windows overlaps an object (IoU >= 0.5).
        learning_rate: of the convolutions, the highest of the one-cycle schedule.
        head_learning_rate: of the layers behind the pooling, likewise.
        weight_decay: of AdamW.
        average: the result is the exponential moving average of the weights over about the last steps, this share of
            all, in [0, 1]. 0: the last weights.
        scale_range: scales of the features are multiplied by a number drawn from here, for each image anew.
        colour: brightness, contrast and saturation are multiplied by numbers drawn from ``[1 - colour, 1 + colour]``.
        mosaic: share of the views that join four images, in [0, 1]. Objects are half as large there.
        precision: of the products: ``bfloat16``, ``float32``, or ``auto``: bfloat16 where the processor has it.

    Raises:
        ArgumentError: a value out of its range.
    """

    blocks: int = 7
    epochs: int = 4
    images_per_batch: int = 2
    windows_per_image: int = 96
    foreground_share: float = 0.25
    learning_rate: float = 3e-5
    head_learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    average: float = 0.04
    scale_range: tuple[float, float] = (0.75, 1.25)
    colour: float = 0.3
    mosaic: float = 0.0
    precision: Literal["auto", "bfloat16", "float32"] = "auto"

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("epochs", "images_per_batch", "windows_per_image"):
            check_whole(name, getattr(self, name), 1, 1 << 20)
        for name in ("learning_rate", "head_learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), 0, 1e3)
        check_number("foreground_share", self.foreground_share, 0, 1)
        check_number("average", self.average, 0, 1)
        check_whole("blocks", self.blocks, 1, 64)
        both = tuple(self.scale_range) if isinstance(self.scale_range, Sequence) else ()
        if len(both) != 2:
            raise ArgumentError(f"scale_range: got {self.scale_range!r}, expected the least and the greatest factor")
        for value in both:
            check_number("scale_range", value, 0.1, 10)
        if both[0] > both[1]:
            raise ArgumentError(f"scale_range: got {both}, expected the least factor first")
        object.__setattr__(self, "scale_range", both)
        check_number("colour", self.colour, 0, 1)
        check_number("mosaic", self.mosaic, 0, 1)
        check_one_of("precision", self.precision, ("auto", "bfloat16", "float32"))


@dataclass(frozen=True)
class SvmOptions:
    """How the linear SVMs and the box regressors are trained (constants of R-CNN and the SPP-net release).

    Args:
        c: cost of a violated margin.
        bias_scale: scaling of the intercept.
        positive_weight: factor on the cost of positives.
        feature_norm: features are scaled so that their mean norm is this.
        negative_iou: a window that overlaps no object of a class by this much is a negative of that class.
        positive_iou: a window that overlaps an object by this much is a positive, as the object's own box is.
        add_above: a negative with a larger margin than this is hard.
        drop_below: a negative with a smaller margin in every class is dropped again.
        per_image: at most this many hard negatives are added for each class and image.
        retrain_every: new examples before the SVMs are trained again.
        box_iou: windows that overlap an object by this much train the box regressor of its class.
        box_regularisation: ridge parameter, on features of mean norm ``feature_norm``.

    Raises:
        ArgumentError: a value out of its range.
    """

    c: float = 1e-3
    bias_scale: float = 10.0
    positive_weight: float = 2.0
    feature_norm: float = 20.0
    negative_iou: float = 0.3
    positive_iou: float = 0.8
    add_above: float = -1.0001
    drop_below: float = -1.2
    per_image: int = 10
    retrain_every: int = 20000
    box_iou: float = 0.6
    box_regularisation: float = 1000.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("c", "bias_scale", "positive_weight", "feature_norm"):
            check_number(name, getattr(self, name), 1e-12, 1e12)
        for name in ("negative_iou", "positive_iou", "box_iou"):
            check_number(name, getattr(self, name), 0, 1)
        for name in ("add_above", "drop_below"):
            check_number(name, getattr(self, name), -1e6, 1e6)
        for name in ("per_image", "retrain_every"):
            check_whole(name, getattr(self, name), 1, 1 << 40)
        check_number("box_regularisation", self.box_regularisation, 0, 1e12)
