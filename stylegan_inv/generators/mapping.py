"""StyleGAN2's mapping network: z -> w (Karras et al. 2019, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.class_choice import ClassChoice, one_hot
from stylegan_inv.generators.layers import FullyConnected, normalize_2nd_moment

#: Random codes from which a latent average is estimated.
W_AVG_SAMPLES = 10_000
_CHUNK = 1000


class MappingNetwork(nn.Module):
    """Maps ``z`` (and a condition) to ``w``, one row per synthesis layer.

    Args:
        z_dim: Size of ``z``; 0 for a network of the condition alone.
        c_dim: Size of the condition; 0 for none.
        w_dim: Size of ``w`` and of every hidden layer.
        num_ws: Rows of the output.
        num_layers: Number of layers.
        lr_multiplier: Learning rate multiplier of the layers.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        w_avg: The latent average, ``(w_dim,)``; of a conditional network the mean over the classes of its training.
        classes: The classes of codes without a condition; None requires a condition of a conditional network.
    """

    w_avg: Tensor
    classes: ClassChoice | None

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        if z_dim + c_dim < 1 or num_layers < 1 or w_dim < 1:
            raise UserError(
                f"a mapping network needs an input, an output and a layer, got z_dim={z_dim}, c_dim={c_dim}, "
                f"w_dim={w_dim}, mapping_layers={num_layers}"
            )
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        self.classes = None
        self._class_averages: dict[int, Tensor] = {}
        features = z_dim
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, w_dim, ops=ops)
            features += w_dim
        for i in range(num_layers):
            layer = FullyConnected(features, w_dim, activation="lrelu", lr_multiplier=lr_multiplier, ops=ops)
            self.add_module(f"fc{i}", layer)
            features = w_dim
        if z_dim > 0:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def w(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """Returns one ``w`` per sample, ``(B, w_dim)``, without truncation.

        Args:
            z: ``(B, z_dim)``, standard normal; None where ``z_dim`` is 0.
            c: Condition ``(B, c_dim)``; None for that of ``classes``, and where ``c_dim`` is 0.

        Raises:
            UserError: Inputs of another shape, a missing condition, or a condition that the network does not have.
        """
        parts = []
        if self.z_dim > 0:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                got = None if z is None else tuple(z.shape)
                raise UserError(f"z must have shape (B, {self.z_dim}), got {got}")
            parts.append(normalize_2nd_moment(z))
        if self.c_dim > 0:
            if c is None and z is not None and self.classes is not None:
                c = self.classes.condition(z)
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                got = None if c is None else tuple(c.shape)
                raise UserError(f"this generator is conditional: c must have shape (B, {self.c_dim}), got {got}")
            parts.append(normalize_2nd_moment(self.embed(c)))
        elif c is not None:
            raise UserError(f"this generator has no condition (c_dim=0), got c of shape {tuple(c.shape)}")
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def forward(
        self, z: Tensor | None, psi: float = 1.0, cutoff: int | None = None, *, c: Tensor | None = None
    ) -> Tensor:
        """Returns codes with truncation ``w_avg + psi * (w - w_avg)`` (Karras et al. 2019, appendix B).

        Codes of ``classes`` are truncated towards :meth:`average`, those of a condition towards ``w_avg``, as in
        NVIDIA's code.

        Args:
            z: ``(B, z_dim)``, standard normal.
            psi: Truncation; 1 keeps ``w``, 0 gives the latent average.
            cutoff: Number of the first layers that are truncated; None for all.
            c: Condition ``(B, c_dim)`` of a conditional generator; None for that of ``classes``.

        Returns:
            ``(B, num_ws, w_dim)``.
        """
        ws = self.w(z, c)[:, None].expand(-1, self.num_ws, -1)
        if psi == 1:
            return ws
        if cutoff is None or cutoff >= self.num_ws:
            return torch.lerp(self._center(c), ws, psi)
        return torch.cat([torch.lerp(self._center(c), ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)

    def average(self) -> Tensor:
        """Returns the latent average of ``classes``.

        Returns:
            ``(w_dim,)``: of a class, or ``w_avg`` if there is none or all are meant. Within a batch of images of
            several classes ``(B, 1, w_dim)``.
        """
        choice = self.classes
        if choice is None or (choice.label is None and choice.labels is None):
            return self.w_avg
        if choice.label is not None:
            return self.class_average(choice.label)
        assert choice.labels is not None
        return torch.stack([self.class_average(label) for label in choice.labels.tolist()])[:, None]

    def class_average(self, label: int) -> Tensor:
        """Returns the mean of w of a class, ``(w_dim,)``, estimated once from random codes."""
        if label not in self._class_averages:
            c = one_hot(torch.tensor([label], device=self.w_avg.device), self.c_dim)
            self._class_averages[label] = self.mean_w(c=c.to(self.w_avg.dtype))
        return self._class_averages[label].to(self.w_avg)

    @torch.no_grad()
    def mean_w(self, samples: int = W_AVG_SAMPLES, seed: int = 0, c: Tensor | None = None) -> Tensor:
        """Returns the mean of w over random codes, ``(w_dim,)``.

        Args:
            samples: Number of codes.
            seed: Seed of the codes; the global generator is not used.
            c: Condition ``(1, c_dim)`` of all codes; None for that of ``classes``.
        """
        rng = torch.Generator().manual_seed(seed)
        total = torch.zeros(self.w_dim, dtype=torch.float64)
        for start in range(0, samples, _CHUNK):
            z = torch.randn(min(_CHUNK, samples - start), self.z_dim, generator=rng).to(self.w_avg)
            total += self.w(z, None if c is None else c.expand(len(z), -1)).double().sum(dim=0).cpu()
        return (total / samples).to(self.w_avg)

    def _center(self, c: Tensor | None) -> Tensor:
        return self.average() if c is None else self.w_avg
