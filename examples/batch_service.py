"""A service that keeps one detector in memory: a line with a path comes in, a line of JSON goes out.

    find images -name "*.jpg" | python examples/batch_service.py [MODEL] > found.jsonl

The model is loaded once, and a bad image does not end the service. Put a queue or a web server in front of it.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from sppnet import ImageError, SPPDetector


def answer(detector: SPPDetector, path: str) -> dict[str, Any]:
    """What is in the image, or what is wrong with it."""
    try:
        found = detector.detect(path)
    except ImageError as error:
        return {"path": path, "error": str(error)}
    objects = [
        {"class": name, "confidence": round(confidence, 4), "xyxy": [round(float(v), 1) for v in box]}
        for box, confidence, _, name in found
    ]
    return {"path": path, "objects": objects, "seconds": round(sum(found.seconds.values()), 3)}


def serve(detector: SPPDetector, lines: Iterable[str]) -> Iterator[str]:
    """A line of JSON for each path, as soon as it is there."""
    for line in lines:
        if path := line.rstrip("\n"):
            yield json.dumps(answer(detector, path), ensure_ascii=False)


if __name__ == "__main__":
    detector = SPPDetector.load(sys.argv[1] if len(sys.argv) > 1 else None).warm_up()
    print("ready", file=sys.stderr)
    for reply in serve(detector, sys.stdin):
        print(reply, flush=True)
