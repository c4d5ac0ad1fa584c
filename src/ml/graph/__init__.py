"""The build graph over days: nodes, edges, and what a day of a node is built from. Pure: no I/O."""

from ml.graph.digests import Contents, InputDigest
from ml.graph.nodes import Graph, Input, Node, build_graph, monitor_id, score_id

__all__ = ["Contents", "Graph", "Input", "InputDigest", "Node", "build_graph", "monitor_id", "score_id"]
