"""Graph networks on `sparsetorch`: MG-GNN, HGNN, Graph U-Net, and matching of devices by logs."""

from typing import TYPE_CHECKING, Any

from graphnets.cross_attention import CrossAttention
from graphnets.graph_batch import GraphBatch
from graphnets.hgnn import HGNN
from graphnets.mggnn import MGGNN
from graphnets.ordered_gru import OrderedGRUConv
from graphnets.published.graph_unet import GraphUNet
from graphnets.readout import readout
from graphnets.tgce import TGCE
from graphnets.two_level import TwoLevelGraph

if TYPE_CHECKING:
    from graphnets.matching.lightning import PairMatcher

__all__ = [
    "HGNN",
    "MGGNN",
    "TGCE",
    "CrossAttention",
    "GraphBatch",
    "GraphUNet",
    "OrderedGRUConv",
    "PairMatcher",
    "TwoLevelGraph",
    "readout",
]


def __dir__() -> list[str]:
    """The public names, `PairMatcher` before it is imported, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """`PairMatcher`, which needs Lightning, when it is asked for."""
    if name != "PairMatcher":
        raise AttributeError(f"module 'graphnets' has no attribute {name!r}")
    try:
        from graphnets.matching.lightning import PairMatcher
    except ModuleNotFoundError as error:
        raise ImportError(
            f"graphnets.PairMatcher needs {error.name}: pip install 'sparsetorch[train]'"
        ) from error
    return PairMatcher
