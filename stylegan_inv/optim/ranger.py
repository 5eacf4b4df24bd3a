"""Ranger, the optimiser of the encoder papers: rectified Adam, Lookahead and gradient centralisation.

RAdam: Liu et al., ICLR 2020, arXiv 1908.03265. Lookahead: Zhang et al., NeurIPS 2019, arXiv 1907.08610. Gradient
centralisation: Yong et al., ECCV 2020, arXiv 2004.01461. Put together by Less Wright; official use:
yuval-alaluf/restyle-encoder, training/ranger.py, commit 5e80276.

Difference: gradients stay as they are; the official code centralises ``.grad`` in place, which a gradient norm logged
after the step, or a second step from the same gradients, would see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stylegan_inv.errors import UserError


class Ranger(Optimizer):
    """Ranger with the papers' defaults.

    All of its state, the slow weights too, is in ``state_dict``: a continued run takes the same steps.

    Args:
        params: parameters or groups of them.
        lr: learning rate (papers: 1e-4, constant).
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second, which is not corrected for its start at zero (as in the official code).
        weight_decay: decoupled: ``lr * weight_decay`` of the weight goes in each step.
        alpha: share of the way that the slow weights go to the fast ones...
        k: ...every so many steps; the fast weights go on from there.
        n_sma_threshold: while the length of the second mean's window is not above it, steps are plain momentum.
        centralize: subtract from the gradient of a weight its mean over all axes but the first.

    Raises:
        UserError: a value out of its range, or a sparse gradient.
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
        betas = (float(betas[0]), float(betas[1]))
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise UserError(
                f"ranger: lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}; expected lr and weight_decay "
                f"of at least 0, betas in [0, 1), eps above 0"
            )
        if not 0 <= alpha <= 1 or k < 1 or n_sma_threshold < 4:  # the rectification is real only above 4
            raise UserError(
                f"ranger: alpha={alpha}, k={k}, n_sma_threshold={n_sma_threshold}; expected alpha in [0, 1], k of at "
                f"least 1, n_sma_threshold of at least 4"
            )
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
        """One step; returns what ``closure`` does."""
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
    """RAdam's r_t times the correction of the second mean for its start at zero; None where the variance is unknown.

    Algorithm 2 of the paper: with rho the length of the simple moving average that the exponential one amounts to,
    r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)).
    """
    decay = beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * decay / (1 - decay)
    if length <= threshold:
        return None
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return math.sqrt(ratio * (1 - decay))
