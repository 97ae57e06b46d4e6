"""Cross-attention on what two devices share: learned weights of tokens, several at a time."""

from __future__ import annotations

from torch import Tensor, nn

from graphnets.matching.tokens import DeviceTokens
from sparsetorch import CSRTensor


class TokenWeights(nn.Module):
    """Several sparse vectors of unit length for each device: weights of its tokens.

        w_dt = b_dt exp(MLP([f_dt, mean of x_i over the nodes i behind the entry])) / norm

    where b = (idf + 0.15)(1 + log(1 + visits)), idf from 0 to about 1: TF-IDF. The dot products of
    two devices' vectors are cosines of TF-IDF with learned weights. The heads' vectors are values
    (heads, nnz) on one pattern.

    Args:
        features: of the entries.
        context: width of the nodes' embeddings; 0 for none.
        heads: vectors a device.
        hidden: width of the MLP.
    """

    def __init__(self, features: int, context: int = 0, heads: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.features = nn.Linear(features, hidden)
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        if self.context is not None:
            # Statistics first: from few people a network learns their habits by heart.
            nn.init.zeros_(self.context.weight)
        # No bias at the end: the norm takes a common factor of all weights away.
        self.weigh = nn.Sequential(
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, heads, bias=False),
        )

    def forward(self, tokens: DeviceTokens, x: Tensor | None = None) -> CSRTensor:
        """Weights (heads, n_devices, n_tokens), from tokens and nodes (n, context)."""
        f = tokens.features
        hidden = self.features(f)
        if self.context is not None and x is not None:
            share = 1.0 / tokens.nodes.crow.diff()
            mean = CSRTensor(tokens.nodes, share[tokens.nodes.row.long()].to(x.dtype))
            hidden = hidden + mean @ self.context(x)
        base = (f[:, 0] + 0.15) * (1 + 3 * f[:, 2])
        w = base[:, None] * self.weigh(hidden).clamp(-6, 4).exp()  # (nnz, heads)
        row = tokens.pattern.row.long()
        squares = w.new_zeros(tokens.pattern.shape[0], w.shape[1]).index_add(0, row, w.square())
        return CSRTensor(tokens.pattern, (w * squares.clamp(min=1e-12).rsqrt()[row]).T)
