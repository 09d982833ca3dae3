"""Random changes of files: bytes, JSON, and the containers of this project with a right checksum again."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

MORE_BYTES = 1 << 30


WORDS = (
    *(b"", b"0", b"-1", b"1e400", b"nan", b"null", b"[]", b"{}", b'""', b"true", b"99999999999999999999", b"../../x"),
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r",
        b",",
        b";",
        b'"',
        b"<",
        b"&a;",
        b"<!DOCTYPE a [",
        b"*",
        b"&x",
        b"\t",
    ),
    *(b"bbox", b"images", b"names", b"shapes", b"points", b"object", b"bndbox", b"difficult", b"1" * 5000, b"[" * 3000),
)


# Files of ours with a checksum: mutations are given a right one again
PACKED = {"model": "sppnet-detector", "classifier": "sppnet-classifier", "cache-entry": "sppnet-cache",
           "checkpoint": "sppnet-checkpoint", "training-state": "sppnet-training"}  # fmt: skip


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A few random changes: bytes, words that parsers stumble over, pieces removed, repeated or swapped, numbers."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        kind, at = draw.randrange(8), draw.randrange(len(out) + 1)
        end = min(len(out), at + draw.choice((1, 2, 4, 16, 64)))
        if kind == 0 and out:
            out[at % len(out)] = draw.randrange(256)
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            out[at:end] = draw.choice(WORDS)
        elif kind == 3:
            out[at:at] = draw.choice(WORDS)
        elif kind == 4:
            del out[at:end]
        elif kind == 5:
            out[at:at] = out[at:end] * draw.choice((1, 2, 50))
        elif kind == 6:
            digits = [i for i, c in enumerate(out) if 48 <= c < 58]
            if digits:
                place = draw.choice(digits)
                out[place : place + 1] = draw.choice((b"-1", b"0", b"1e999", b"9" * 30, b"0.5", b"null", b'"x"', b""))
        elif kind == 7 and len(out) > 8:
            del out[draw.randrange(len(out)) :]
    return bytes(out[: 1 << 18])


def mutate_model(data: bytes, draw: random.Random, kind: str = "sppnet-detector") -> bytes:
    """A file of ours whose metadata or tensors are changed and whose checksum is right again (or damaged bytes)."""
    from safetensors.torch import load

    if draw.random() < 0.4:
        return mutate(data, draw)
    text = model_text(data)
    tensors = load(data)
    if draw.random() < 0.7:
        text = mutate_json(text, draw)
    else:
        name = draw.choice(sorted(tensors))
        change = draw.randrange(4)
        if change == 0:
            del tensors[name]
        elif change == 1:
            tensors[name] = tensors[name].flatten()[: draw.randrange(1, 9)].clone()
        elif change == 2:
            tensors[name] = (tensors[name] * float("inf")).contiguous()
        else:
            tensors[name] = tensors[name].to(draw.choice(types()))
    now = str(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["format"])
    form = draw.choice((now, now, now, f"{kind}-1", f"{kind}-99", ""))
    try:
        return pack_model(tensors, text, form)
    except (UnicodeError, RuntimeError, TypeError):  # TypeError: NumPy has no such type
        return data


def model_text(data: bytes) -> str:
    """The metadata of a detector file."""
    length = struct.unpack("<Q", data[:8])[0]
    return str(json.loads(data[8 : 8 + length])["__metadata__"]["sppnet"])


def pack_model(tensors: dict[str, Any], text: str, form: str) -> bytes:
    """A detector file with the metadata ``text`` and a right checksum."""
    from safetensors.torch import save

    from sppnet.storage import envelope

    digest = envelope._digest({name: value.numpy() for name, value in tensors.items()}, text)
    return save(tensors, metadata={"format": form, "sppnet": text, "sha256": digest})


def types() -> list[Any]:
    import torch

    return [torch.int8, torch.bool, torch.int64, torch.bfloat16, torch.float64, torch.complex64]


def mutate_json(text: str, draw: random.Random) -> str:
    """JSON with one value, at any depth, replaced by another kind of value, or one key removed."""
    document = json.loads(text)
    node, key = draw.choice(places(document))
    if draw.random() < 0.2 and isinstance(node, dict):
        del node[key]
    else:
        values: tuple[Any, ...] = (
            None,
            True,
            -1,
            0,
            1,
            10**9,
            1e300,
            0.5,
            "",
            "x",
            "nan",
            [],
            [1],
            {},
            {"a": 1},
            [[]],
            ["cat"] * 3,
            -0.5,
        )
        node[key] = draw.choice(values)
    return json.dumps(document)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place in parsed JSON, as a dictionary or list and a key or index of it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in list(items) for place in ((node, key), *places(value))]
