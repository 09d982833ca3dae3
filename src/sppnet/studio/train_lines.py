"""Reads the lines of ``sppnet train``: how far it is, how long it takes, and how good the detector became."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["TrainLines"]

# The stages, in their order, with what their lines begin with
_STAGES = (
    ("windows and maps", ("windows and maps", "maps and windows", "estimating", "principal components", "rescaling")),
    ("layers", ("epoch", "fully connected", "layers", "SVMs")),
    ("measuring", ("measuring", "detecting", "trained in", "calibrating")),
)
_SHARES = (0.55, 0.3, 0.15)  # where the command does not estimate
_ESTIMATE = re.compile(r"estimate.*\(windows and maps (.+?), layers (.+?), measuring.*? (about [^),]+)\)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h)\b")
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_COUNT = re.compile(r"(\d+) of (\d+)(?: in\b|:)")
_MEAN = re.compile(r"mean / total\s+(\d\.\d+)\s+(\d\.\d+)\s+\d+")
_IMAGES = re.compile(r"measured on .*\((\d+) images?\)")


@dataclass
class TrainLines:
    """What the lines so far say.

    Attributes:
        stage: place in the stages, from 0.
        inside: share of the stage that is done.
        seconds: expected of each stage, where the command estimated.
        ap: mean ``voc-area`` of the trained detector, at the end.
        images: that it was measured on.
        errors: lines that name a problem.
        last: the last line.
    """

    stage: int = 0
    inside: float = 0.0
    seconds: tuple[float, ...] | None = None
    ap: float | None = None
    images: int | None = None
    errors: list[str] = field(default_factory=list)
    last: str = ""
    _since: float = 0.0

    def read(self, line: str, now: float) -> None:
        """Take one line.

        Args:
            line: without its end.
            now: seconds since the command was started.
        """
        text = line.strip()
        if not text:
            return
        self.last = text
        if text.startswith("sppnet") and ": " in text:
            self.errors.append(text.partition(": ")[2])
        elif found := _ESTIMATE.match(text):
            self.seconds = tuple(max(1.0, _seconds(part)) for part in found.groups())
        elif found := _MEAN.match(text):
            self.ap = float(found[2])
        elif found := _IMAGES.match(text):
            self.images = int(found[1])
        for place, (_, words) in enumerate(_STAGES):
            if text.startswith(words) and place >= self.stage:
                if place > self.stage:
                    self.stage, self.inside, self._since = place, 0.0, now
                if count := _COUNT.search(text):
                    done, total = int(count[1]), max(1, int(count[2]))
                    self.inside = max(self.inside, min(1.0, done / total))

    @property
    def name(self) -> str:
        """What it does now, in words."""
        return _STAGES[self.stage][0]

    def fraction(self, now: float) -> float:
        """Share of the whole that is done, from 0 to 1. Between two lines the time says how far it may be."""
        shares = self._shares()
        inside = self.inside
        if self.seconds is not None:
            inside = max(inside, min(0.9, (now - self._since) / self.seconds[self.stage]))
        return min(0.99, sum(shares[: self.stage]) + shares[self.stage] * inside)

    def seconds_left(self, now: float) -> float | None:
        """About how long it will take; None where nobody can tell yet."""
        fraction = self.fraction(now)
        if self.seconds is not None:
            by_estimate = sum(self.seconds) * (1 - fraction)
            if now < 20 or fraction < 0.1:
                return by_estimate
        return now / fraction - now if now > 10 and fraction > 0.05 else None

    def _shares(self) -> tuple[float, ...]:
        if self.seconds is None:
            return _SHARES
        return tuple(s / sum(self.seconds) for s in self.seconds)


def _seconds(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
