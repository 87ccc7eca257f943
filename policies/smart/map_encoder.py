"""Map tokens to features."""

from collections.abc import Iterable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from policies.smart.attention import RelationalAttention
from policies.smart.config import SMARTConfig
from policies.smart.graph import Neighbors, Poses, radius_edges, relative_pose, relative_ranges
from policies.smart.layers import FourierEmbedding, MLPEmbedding
from policies.smart.map_tokens import LaneLight, MapTokens, PointType, PolygonType
from policies.smart.native.library import takes
from policies.smart.relation import Relation


class MapEncoder(nn.Module):
    """Attention among the map tokens of a scene (SMART, arXiv:2405.15677, section 3.2).

    Args:
        config: Sizes and ranges.
        curves: The map vocabulary.
    """

    curves: Tensor

    def __init__(self, config: SMARTConfig, curves: Float[Tensor, "curves points 2"]) -> None:
        super().__init__()
        self.radius = config.map_radius
        self.num_heads = config.num_heads
        self.register_buffer("curves", curves.flatten(1), persistent=False)
        self.curve_embedding = MLPEmbedding(self.curves.shape[1], config.hidden_dim)
        self.point_type_embedding = nn.Embedding(len(PointType), config.hidden_dim)
        self.polygon_type_embedding = nn.Embedding(len(PolygonType), config.hidden_dim)
        self.light_embedding = nn.Embedding(len(LaneLight), config.hidden_dim)
        self.relation = FourierEmbedding(
            relative_ranges(config.map_radius), config.num_frequencies, config.hidden_dim
        )
        self.layers = nn.ModuleList(
            RelationalAttention.from_config(config, is_bipartite=False)
            for _ in range(config.num_map_layers)
        )

    def forward(self, tokens: MapTokens) -> Float[Tensor, "scenes map_tokens hidden"]:
        """Encodes a batch of maps. Padding has features of zero."""
        scene, place = tokens.valid.nonzero(as_tuple=True)
        features = (
            self.curve_embedding(self.curves)[tokens.token[scene, place]]
            + self.point_type_embedding(tokens.point_type[scene, place])
            + self.polygon_type_embedding(tokens.polygon_type[scene, place])
            + self.light_embedding(tokens.light[scene, place])
        )
        poses = Poses(xy=tokens.xy[scene, place], heading=tokens.heading[scene, place], group=scene)
        edges = radius_edges(poses, poses, self.radius)
        neighbors = Neighbors.from_edges(*edges, scene.shape[0], padded=not takes(poses.xy))
        scalars = relative_pose(poses, poses, neighbors)
        encoding = self.relation.encode(scalars)
        relation = Relation.from_encoding(neighbors, encoding, num_heads=self.num_heads)
        for layer in cast(Iterable[RelationalAttention], self.layers):
            features, _ = layer(features, relation)
        padded = features.new_zeros(*tokens.valid.shape, features.shape[-1])
        return padded.index_put((scene, place), features)
