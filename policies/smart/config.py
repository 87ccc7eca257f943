"""How large a SMART is, and how far it looks."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class SMARTConfig:
    """Sizes of the network and ranges of its attention.

    The defaults are the nano model. `SMARTConfig.preset` knows the others by name.
    """

    hidden_dim: int = 64
    """Features of a map token or of an agent at a mark."""

    num_heads: int = 4
    """Attention heads."""

    head_dim: int = 8
    """Features of a query in one head."""

    num_map_layers: int = 2
    """Attention layers among map tokens."""

    num_agent_layers: int = 4
    """Blocks of temporal, map-to-agent and agent-to-agent attention."""

    map_radius: float = 10.0
    """How far map tokens see each other (m)."""

    map_agent_radius: float = 20.0
    """How far agents see the map (m)."""

    agent_radius: float = 20.0
    """How far agents see each other (m)."""

    temporal_span: int = 4
    """How many marks an agent looks back."""

    num_frequencies: int = 64
    """Learned frequencies of each number in a relative pose."""

    dropout: float = 0.1
    """Dropped attention weights and feed-forward features, while training."""

    history_dropout: float = 0.1
    """Marks that are dropped from temporal attention, while training."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("dropout"):
                if not 0 <= value < 1:
                    raise ValueError(f"{field.name} must be in [0, 1), got {value}")
            elif not value > 0:
                raise ValueError(f"{field.name} must be positive, got {value}")

    @property
    def attention_dim(self) -> int:
        """Features of the queries of all heads."""
        return self.num_heads * self.head_dim

    @classmethod
    def preset(cls, name: str) -> "SMARTConfig":
        """Returns the configuration with a name: `micro`, `nano`, `mini`, `tiny` or `large`.

        nano (1.2 million parameters), mini (3.4) and tiny (7.0) are catk's (arXiv:2412.05334).
        large has the 102 million parameters of SMART's largest model, whose layers are not
        published; micro is for demonstrations and tests.
        """
        if name not in PRESETS:
            raise ValueError(f"no SMART is called {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name]


_WIDE = {"hidden_dim": 128, "map_agent_radius": 30.0, "agent_radius": 60.0, "temporal_span": 6}

PRESETS = {
    "micro": SMARTConfig(hidden_dim=32, num_map_layers=1, num_agent_layers=2),
    "nano": SMARTConfig(),
    "mini": SMARTConfig(**_WIDE),
    "tiny": SMARTConfig(**_WIDE, num_heads=8, head_dim=16, num_map_layers=3, num_agent_layers=6),
    "large": SMARTConfig(
        **{**_WIDE, "hidden_dim": 512},
        num_heads=8,
        head_dim=64,
        num_map_layers=3,
        num_agent_layers=6,
    ),
}
"""Configurations by name."""
