"""The detector that comes with sppnet: trained on VOC2007 trainval, its probabilities fitted with one trained on train.

    python benchmarks/make_default_model.py --data VOC2007 --cache DIR --output voc20.safetensors

Trains the same recipe twice: on ``train``, which is calibrated and measured on ``val`` (``OUTPUT-train``), and on
``trainval`` (``OUTPUT-trainval``). The file is the second one, with the sigmoids and thresholds of the first: nothing
can be fitted on images that it was trained on. The figures in its metadata are those of the first, and say so. May be
stopped at any time. With ``--tune-convolutions`` the convolutions are trained, too. Files that are there already are
taken as they are, so the two trainings may run at the same time, by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from sppnet.cli.main import main as sppnet
from sppnet.detection.detector import SPPDetector


def main() -> None:
    """Train both, put them together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="VOC2007 in VOC layout")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tune-convolutions", action="store_true", help="train the last convolutions, too")
    arguments = parser.parse_args()
    parts = {
        "train": arguments.output.with_name(f"{arguments.output.stem}-train.safetensors"),
        "trainval": arguments.output.with_name(f"{arguments.output.stem}-trainval.safetensors"),
    }
    for split, path in parts.items():
        if path.exists():
            print(f"{path} is there; it isn't trained again")
            continue
        val = "val" if split == "train" else "none"
        command = ["train", arguments.data, "--split", split, "--val-split", val, "--output", str(path)]
        command += ["--tune-convolutions"] if arguments.tune_convolutions else []
        if sppnet([*command, "--cache", arguments.cache, "--on-error", "skip"]):
            sys.exit(f"training on {split} failed")
    measured, whole = (SPPDetector.load(path) for path in parts.values())
    together(measured, whole).save(arguments.output)
    for path in (*parts.values(), arguments.output):
        print(f"{path}: {path.stat().st_size} bytes")
    for protocol, figures in whole.metadata_["metrics"].items():
        print(f"{protocol}: {figures['map']}, {figures['note']}")


def together(measured: SPPDetector, whole: SPPDetector) -> SPPDetector:
    """Give ``whole`` the confidences, thresholds and figures of ``measured``, and say whose they are."""
    whole.weights_ = dataclasses.replace(
        whole.weights_, slope=measured.weights_.slope, offset=measured.weights_.offset
    )  # fmt: skip
    images = measured.metadata_["training"]["images"]
    note = (
        f"of the same recipe trained on train ({images} images); this file is trained on trainval, which has val in it"
    )
    whole.metadata_["thresholds"] = measured.metadata_["thresholds"]
    whole.metadata_["calibrated_on"] = (
        f"{measured.metadata_['calibrated_on']}, with a detector of the same recipe trained on train ({images})"
    )
    whole.metadata_["metrics"] = {
        protocol: figures | {"note": note} for protocol, figures in measured.metadata_["metrics"].items()
    }
    return whole


if __name__ == "__main__":
    main()
