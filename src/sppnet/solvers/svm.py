"""Linear support vector machines of all classes at once (L2-regularised squared hinge loss).

For each class c, with labels y in {-1, +1} (0: the example takes no part in that class), the objective is that of
scikit-learn's ``LinearSVC(loss="squared_hinge", dual=False)``::

    0.5 * (|w_c|^2 + (b_c / bias_scale)^2) + C * sum_i s_ic * max(0, 1 - y_ic * (x_i . w_c + b_c))^2

where s is ``positive_weight`` for positives and 1 for negatives, and ``bias_scale`` is its ``intercept_scaling`` (the
R-CNN release calls it the bias multiplier). With a ``prior`` the distance from it is penalised instead of the length,
so that the SVM starts from a classifier that is known already and only mends what it gets wrong (the "adaptive SVM" of
Yang, Yan and Hauptmann, 2007). The classes share every pass over the data: one matrix product gives the
margins of all of them, another the gradients. That is much faster than one solver run a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sppnet.errors import ArgumentError

__all__ = ["LinearSVMs", "svm_objective", "train_svms"]


@dataclass(frozen=True)
class LinearSVMs:
    """Linear SVMs of several classes; the margin of x is ``weight @ x + bias``.

    Attributes:
        weight: float32 ``(classes, D)``.
        bias: float32 ``(classes,)``.
        objective: float64 ``(classes,)``, at the solution.
        iterations: that the solver took.
    """

    weight: Tensor
    bias: Tensor
    objective: Tensor
    iterations: int


def svm_objective(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    c: float = 1.0,
    positive_weight: float = 1.0,
    bias_scale: float = 1.0,
    prior: tuple[Tensor, Tensor] | None = None,
    block: int = 65536,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the objective of each class, and its gradients.

    Args:
        x: float32 or float16 ``(N, D)``; float16 is converted a block at a time.
        y: int8 ``(N, classes)`` of -1, 0, +1.
        weight: ``(classes, D)``.
        bias: ``(classes,)``.
        c: cost of a violated margin.
        positive_weight: factor on the cost of positives.
        bias_scale: intercept scaling.
        prior: weight and bias from which the distance is penalised; None: the length is.
        block: rows of ``x`` that are worked on at once.

    Returns:
        Objective float64 ``(classes,)``, gradient by ``weight`` ``(classes, D)``, gradient by ``bias`` ``(classes,)``.
    """
    away, away_b = (weight, bias) if prior is None else (weight - prior[0], bias - prior[1])
    loss = 0.5 * (away.double().square().sum(1) + (away_b.double() / bias_scale).square())
    grad_w = away.clone()
    grad_b = away_b / bias_scale**2
    for start in range(0, x.shape[0], block):
        xb = x[start : start + block].to(weight.dtype)
        yb = y[start : start + block].to(weight.dtype)
        slack = (1 - yb * torch.addmm(bias, xb, weight.T)).clamp_(min=0).mul_(yb != 0)
        cost = torch.where(yb > 0, c * positive_weight, c)
        weighted = slack * cost
        loss += (weighted * slack).sum(0, dtype=torch.float64)
        residual = weighted.mul_(yb).mul_(-2)
        grad_w += residual.T @ xb
        grad_b += residual.sum(0)
    return loss, grad_w, grad_b


def train_svms(
    x: Tensor,
    y: Tensor,
    *,
    c: float = 1.0,
    positive_weight: float = 1.0,
    bias_scale: float = 1.0,
    prior: tuple[Tensor, Tensor] | None = None,
    start: LinearSVMs | None = None,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    progress: Callable[[int], None] | None = None,
) -> LinearSVMs:
    """Train one linear SVM a class by L-BFGS over all classes at once. Deterministic.

    Each class has its own curvature memory and step (its problem is separate), so no class waits for the line search
    of another; a class whose gradient has fallen to ``tolerance`` times its first one stands still.

    Args:
        x: features float32 or float16 ``(N, D)``.
        y: int8 ``(N, classes)``: +1, -1, or 0 to leave the example out of a class.
        c: cost of a violated margin.
        positive_weight: factor on the cost of positives.
        bias_scale: intercept scaling; larger means that the bias is regularised less.
        prior: weight ``(classes, D)`` and bias ``(classes,)`` that the solution is drawn to, instead of to zero.
        start: the solution to begin with, e.g. the one before some negatives were added.
        max_iterations: the solver stops then, solved or not.
        tolerance: a class is solved when its gradient is this many times shorter than at zero.
        progress: called with the number of each iteration.

    Returns:
        The SVMs.

    Raises:
        ArgumentError: shapes that don't fit, or a class without a positive or without a negative.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ArgumentError(f"x, y: expected (N, D) and (N, classes), got {tuple(x.shape)} and {tuple(y.shape)}")
    for sign, word in ((1, "positive"), (-1, "negative")):
        lacking = torch.nonzero(~(y == sign).any(0)).flatten().tolist()
        if lacking:
            raise ArgumentError(f"y: class {lacking[0]} has no {word} example; a linear SVM needs both kinds")
    classes, dims = y.shape[1], x.shape[1]
    first = (torch.zeros(classes, dims), torch.zeros(classes)) if prior is None else prior
    zero = torch.cat([first[0], first[1][:, None]], 1)
    w = zero if start is None else torch.cat([start.weight, start.bias[:, None]], 1)

    def evaluate(at: Tensor) -> tuple[Tensor, Tensor]:
        # the bias is optimised as b / bias_scale, so that the regulariser is round
        loss, gw, gb = svm_objective(
            x,
            y,
            at[:, :-1],
            at[:, -1] * bias_scale,
            c=c,
            positive_weight=positive_weight,
            bias_scale=bias_scale,
            prior=prior,
        )
        return loss, torch.cat([gw, gb[:, None] * bias_scale], 1).double()

    at = w.float().clone()
    zero = zero.clone()
    at[:, -1] /= bias_scale
    loss, grad = evaluate(at)
    zero[:, -1] /= bias_scale
    zero_grad = grad if start is None else evaluate(zero.float())[1]
    limit = tolerance * zero_grad.norm(dim=1)
    memory: list[tuple[Tensor, Tensor, Tensor]] = []  # steps, gradient changes, 1 / (s . y), each a class
    step = (1.0 / grad.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)
    iteration = 0
    for iteration in range(1, max_iterations + 1):
        active = grad.norm(dim=1) > limit
        if not bool(active.any()):
            break
        direction = -_inverse_hessian_times(grad, memory)
        slope = (direction * grad).sum(1)
        uphill = slope >= 0
        direction[uphill] = -grad[uphill]
        slope = (direction * grad).sum(1)
        trial = torch.where(active, step if not memory else torch.ones_like(step), torch.zeros_like(step))
        # backtracking (Armijo) for each class; all classes share the evaluations
        for _ in range(25):
            new = (at.double() + trial[:, None] * direction).float()
            new_loss, new_grad = evaluate(new)
            bad = new_loss > loss + 1e-4 * trial * slope + 1e-12 * loss.abs()
            if not bool(bad.any()):
                break
            trial = torch.where(bad, trial * 0.5, trial)
        else:
            # float32 can't improve these any more
            trial = torch.where(bad, torch.zeros_like(trial), trial)
            new = (at.double() + trial[:, None] * direction).float()
            new_loss, new_grad = evaluate(new)
            if not bool((trial > 0).any()):
                break
        s, g = new.double() - at.double(), new_grad - grad
        curvature = (s * g).sum(1)
        usable = curvature > 1e-12 * g.square().sum(1)
        rho = torch.where(usable, 1 / torch.where(usable, curvature, torch.ones_like(curvature)), 0.0)
        memory = [*memory[-9:], (s, g, rho)]
        at, loss, grad = new, new_loss, new_grad
        if progress is not None:
            progress(iteration)
    return LinearSVMs(at[:, :-1].clone(), at[:, -1] * bias_scale, loss, iteration)


def _inverse_hessian_times(grad: Tensor, memory: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion of L-BFGS (Nocedal, 1980), each row its own problem."""
    q = grad.clone()
    alphas = []
    for s, g, rho in reversed(memory):
        alpha = rho * (s * q).sum(1)
        q -= alpha[:, None] * g
        alphas.append(alpha)
    if memory:
        s, g, rho = memory[-1]
        scale = torch.where(rho > 0, (s * g).sum(1) / g.square().sum(1).clamp(min=1e-30), torch.ones_like(rho))
        q *= scale[:, None]
    for (s, g, rho), alpha in zip(memory, reversed(alphas), strict=True):
        beta = rho * (g * q).sum(1)
        q += (alpha - beta)[:, None] * s
    return q
