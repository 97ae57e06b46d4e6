"""Cross-attention between the graphs of a pair: how well either is explained by the other.

Taghibakhshi et al., DaWaK 2023 (arXiv:2304.03215), section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from graphnets.cross_attend import cross_attend
from graphnets.mggnn import mlp
from graphnets.ragged import Ragged, segment_max


class CrossAttention(nn.Module):
    """A score for each pair of graphs, from what each node finds in the other graph.

    With node embeddings X_v (m, d) and X_w (n, d),

        A_vw = softmax of the rows of s (X_v W)(X_w W)^T, rows of X W scaled to length one,
        L_vw = (diag(beta_v) (A_vw X_w - X_v))^2 elementwise,
        beta_v = sigmoid(W_4 tanh(W_5 X_v)), one number a node, which filters nodes,
        r_vw = max over nodes of MLP(L_vw), and r_wv the other way round,
        score = (f([r_vw, r_wv]) + f([r_wv, r_vw])) / 2, f an MLP.

    The paper leaves open what compares nodes: here cosines times a learned number s, W the identity
    at first, so that a node attends to its like from the start. It takes f of one order; the mean
    of both makes the score the same for (v, w) and (w, v).

    Args:
        width: d.
        hidden: of the MLPs and of beta.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.key.weight)
        self.log_sharpness = nn.Parameter(torch.tensor(2.5))  # s is 12 at first
        self.filter = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.compare = mlp(width, hidden, hidden)
        self.score = mlp(2 * hidden, hidden, 1)

    def forward(self, ptr: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        """Log-odds (k,) of pairs (k, 2) of graphs; graph v has rows ptr[v] to ptr[v + 1]."""
        beta = torch.sigmoid(self.filter(x))
        found = cross_attend(ptr, self.keys(x).to(x.dtype), x, pairs)  # autocast may differ
        sides = [self._explained(ptr, x, beta, pairs[:, side], found[side]) for side in range(2)]
        there, back = torch.cat(sides, 1), torch.cat(sides[::-1], 1)
        return (self.score(there) + self.score(back))[:, 0] / 2

    def keys(self, x: Tensor) -> Tensor:
        """(n, d) -> (n, d), whose dot products are the attention's scores."""
        return normalize(self.key(x), dim=1) * (self.log_sharpness / 2).exp()

    def _explained(
        self, ptr: Tensor, x: Tensor, beta: Tensor, members: Tensor, found: Ragged
    ) -> Tensor:
        """(k, hidden): what is left of each member when the other explains it."""
        nodes = Ragged(ptr, torch.arange(len(x), device=x.device)).select(members)[0].values
        left = (found.values - x.index_select(0, nodes)) * beta.index_select(0, nodes)
        return segment_max(found.with_values(self.compare(left.square())))
