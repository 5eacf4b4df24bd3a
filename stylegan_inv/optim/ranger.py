"""Ranger, the optimiser of the encoder papers: rectified Adam, Lookahead and gradient centralisation.

RAdam: Liu et al., ICLR 2020, arXiv 1908.03265. Lookahead: Zhang et al., NeurIPS 2019, arXiv 1907.08610. Gradient
centralisation: Yong et al., ECCV 2020, arXiv 2004.01461. Combined by Less Wright. Official code:
yuval-alaluf/restyle-encoder, training/ranger.py, commit 5e80276.

Difference: The gradients are not modified. The official code centralises ``.grad`` in place, which changes a gradient
norm that is logged after the step, or a second step with the same gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, whole_number


class Ranger(Optimizer):
    """Ranger with the defaults of the encoder papers.

    ``state_dict`` contains the whole state including the slow weights, so that a resumed run takes the same steps.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Decay rates of the moving averages of the gradient and of its square.
        eps: Added to the root of the average squared gradient, before its bias correction (as in the official code).
        weight_decay: Decoupled weight decay; each step subtracts ``lr * weight_decay`` times the weight.
        alpha: Interpolation factor of Lookahead, from the slow weights towards the fast ones.
        k: Number of steps between two updates of the slow weights.
        n_sma_threshold: Length of the moving average up to which steps are not divided by the root of the average
            squared gradient, whose variance is too large.
        centralize: Subtract the mean over all dimensions but the first from the gradients of weights.

    Raises:
        UserError: A value out of its range, or a sparse gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        alpha: float = 0.5,
        k: int = 6,
        n_sma_threshold: float = 5,
        centralize: bool = True,
    ) -> None:
        real_number("ranger: lr", lr, least=0)
        real_number("ranger: eps", eps, above=0)
        real_number("ranger: weight_decay", weight_decay, least=0)
        real_number("ranger: alpha", alpha, least=0, most=1)
        whole_number("ranger: k", k)
        real_number("ranger: n_sma_threshold", n_sma_threshold, least=4)  # the rectification is real only above 4
        betas = (float(betas[0]), float(betas[1]))
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"ranger: optimizer.betas={betas}, expected numbers of at least 0 and below 1")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "alpha": alpha,
            "k": k,
            "n_sma_threshold": n_sma_threshold,
            "centralize": centralize,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes an optimisation step.

        Args:
            closure: Reevaluates the model and returns the loss; None if the gradients are already there.

        Returns:
            The result of ``closure``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, param.grad, group)
        return loss

    def _update(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if gradient.is_sparse:
            raise UserError("ranger got a sparse gradient, expected dense ones; use another optimizer")
        state = self.state[param]
        if not state:
            state.update(
                step=0,
                exp_avg=torch.zeros_like(param),
                exp_avg_sq=torch.zeros_like(param),
                slow=param.clone(),
            )
        state["step"] += 1
        if group["centralize"] and gradient.ndim > 1:
            gradient = gradient - gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True)
        beta1, beta2 = group["betas"]
        state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)

        if group["weight_decay"]:
            param.mul_(1 - group["lr"] * group["weight_decay"])
        size = group["lr"] / (1 - beta1 ** state["step"])
        factor = rectification(state["step"], beta2, group["n_sma_threshold"])
        if factor is None:
            param.add_(state["exp_avg"], alpha=-size)
        else:
            param.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-size * factor)

        if state["step"] % group["k"] == 0:
            state["slow"].lerp_(param, group["alpha"])
            param.copy_(state["slow"])


def rectification(step: int, beta2: float, threshold: float) -> float | None:
    """Returns RAdam's r_t times the bias correction of the average squared gradient.

    Algorithm 2 of the paper: with rho_t the length of the simple moving average that approximates the exponential one,
    r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)).

    Args:
        step: Number t of the step, from 1.
        beta2: Decay rate of the average squared gradient.
        threshold: Length rho_t up to which the variance is intractable.

    Returns:
        The factor, or None if the variance is intractable.
    """
    decay = beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * decay / (1 - decay)
    if length <= threshold:
        return None
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return math.sqrt(ratio * (1 - decay))
