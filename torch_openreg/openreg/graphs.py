"""`torch.openreg.graphs`, the module that torch.cuda and torch.xpu call so. The file of the noun is `graph`, whose name is a context manager's."""

from __future__ import annotations

from .graph import Graph, graph, graph_pool_handle, is_current_stream_capturing, make_graphed_callables

__all__ = ["Graph", "graph", "graph_pool_handle", "is_current_stream_capturing", "make_graphed_callables"]
