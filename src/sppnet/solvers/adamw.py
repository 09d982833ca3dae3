"""AdamW (Loshchilov and Hutter, 2019) by torch's own arithmetic, without torch's optimiser class.

Why: the first optimiser of a process makes torch import its compiler, which takes 1.2 s of processor and 60 MB, in each
training and before the studio's first suggestions. The function that does the arithmetic needs none of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["AdamW", "one_cycle_rates"]

_STATE = ("step", "exp_avg", "exp_avg_sq")


class AdamW:
    """Changes parameters by their gradients; the same numbers as ``torch.optim.AdamW`` with ``fused=True``.

    Args:
        groups: lists of parameters that have a learning rate in common.
        rates: the learning rate of each group, above 0.
        weight_decay: of all parameters, at least 0.

    Attributes:
        rates: may be changed between steps.
        betas: of the two moving averages; may be changed between steps.
    """

    def __init__(self, groups: Iterable[Iterable[Tensor]], rates: Iterable[float], weight_decay: float = 0.01) -> None:
        self.groups = [list(group) for group in groups]
        self.rates = list(rates)
        self.betas = (0.9, 0.999)
        self._weight_decay = weight_decay
        self._state: dict[int, dict[str, Tensor]] = {}  # by the number of the parameter, over all groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        number = 0
        for group, rate in zip(self.groups, self.rates, strict=True):
            parameters, gradients, states = [], [], []
            for parameter in group:
                if parameter.grad is not None:
                    if number not in self._state:
                        self._state[number] = _fresh(parameter)
                    parameters.append(parameter)
                    gradients.append(_along(parameter, parameter.grad))
                    states.append(self._state[number])
                number += 1
            steps, means, squares = ([state[name] for state in states] for name in _STATE)
            adamw(
                parameters,
                gradients,
                means,
                squares,
                [],
                steps,
                amsgrad=False,
                fused=all(map(_is_plain, parameters)),  # in one pass: three to five times as fast
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=rate,
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
            )

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, such as ``optimiser.3.exp_avg``."""
        return {f"optimiser.{i}.{name}": state[name] for i, state in self._state.items() for name in _STATE}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the state of :meth:`tensors`; other names are ignored."""
        self._state.clear()
        number = 0
        for group in self.groups:
            for parameter in group:
                if f"optimiser.{number}.step" in tensors:
                    step, *others = (tensors[f"optimiser.{number}.{name}"] for name in _STATE)
                    moved = (torch.empty_like(parameter).copy_(value) for value in others)
                    self._state[number] = dict(zip(_STATE, (step.clone(), *moved), strict=True))
                number += 1


def _along(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of the parameter: in one pass torch goes along the memory of both, unasked."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _is_plain(parameter: Tensor) -> bool:
    """Whether it lies on the CPU, without gaps, as its moving averages do."""
    dense = parameter.is_contiguous() or (
        parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    )
    return parameter.device.type == "cpu" and dense


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
    return dict(zip(_STATE, (torch.tensor(0.0), *zeros), strict=True))


def one_cycle_rates(step: int, steps: int, highest: float) -> tuple[float, float]:
    """Learning rate and first beta of a step, as ``torch.optim.lr_scheduler.OneCycleLR`` sets them.

    The rate goes up along a cosine for three tenths of the steps, from 1/25 of the highest one, then down to nothing
    (Smith and Topin, 2018); beta the other way, from 0.95 to 0.85 and back.

    Args:
        step: from 0.
        steps: how many there are, at least 2.
        highest: learning rate.
    """
    up = float(0.3 * steps) - 1
    if step <= up:
        share, rates, betas = step / up, (highest / 25, highest), (0.95, 0.85)
    else:
        share, rates, betas = (step - up) / (steps - 1 - up), (highest, highest / 25 / 1e4), (0.85, 0.95)
    rate, beta = (end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1) for start, end in (rates, betas))
    return rate, beta
