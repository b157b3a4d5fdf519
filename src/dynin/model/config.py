"""The shape of a backbone, and the shipped sizes as constants.

Enters: nothing. Leaves: `ModelConfig`, `PUBLISHED_8B`, `EMBEDDED`. Does not know which id means what: it reads only the
number of rows from the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from dynin.errors import ConfigError
from dynin.vocabulary import EMBEDDED as EMBEDDED_VOCABULARY
from dynin.vocabulary import PUBLISHED as PUBLISHED_VOCABULARY


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that decides the shapes and the arithmetic of a backbone."""

    d_model: int
    """Width of the residual stream."""
    num_heads: int
    """Query heads; the head width is `d_model / num_heads`, an even number."""
    num_kv_heads: int
    """Key and value heads; divides `num_heads`, and equals it in plain multi-head attention."""
    num_layers: int
    mlp_dim: int
    """Width of the gated feed-forward."""
    num_rows: int
    """Rows of the embedding table and of the output head: the size of the vocabulary."""
    max_len: int
    """Longest sequence the model was trained for, in positions. Longer ones run, at the user's risk."""
    rope_theta: float = 500_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-5
    """Added to the mean square inside every norm."""

    def __post_init__(self) -> None:
        """Check that the widths fit together."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"model setting {field.name!r} is {value}; it must be positive")
        if self.d_model % self.num_heads or self.head_dim % 2:
            raise ConfigError(
                f"d_model {self.d_model} cannot be split into {self.num_heads} heads of even width; "
                "choose d_model as an even multiple of num_heads"
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.num_heads

    def to_dict(self) -> dict[str, int | float]:
        """The config as plain values, to be stored in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ModelConfig":
        """The inverse of `to_dict`; ConfigError names the keys that are missing, unknown or of the wrong kind."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
            raise ConfigError(
                f"the model config lacks {missing} and has unknown {unknown}; expected {sorted(expected)}"
            )
        for field in fields(cls):
            value = values[field.name]
            is_wrong = isinstance(value, bool) or not isinstance(value, int | float if field.type is float else int)
            if is_wrong:
                kind = "a number" if field.type is float else "an integer"
                raise ConfigError(f"model setting {field.name!r} is {value!r}; expected {kind}")
        return cls(**values)  # type: ignore[arg-type]


PUBLISHED_8B = ModelConfig(
    d_model=4096,
    num_heads=32,
    num_kv_heads=32,
    num_layers=32,
    mlp_dim=12_288,
    num_rows=PUBLISHED_VOCABULARY.size,
    max_len=4096,
)

EMBEDDED = ModelConfig(
    d_model=256,
    num_heads=8,
    num_kv_heads=8,
    num_layers=8,
    mlp_dim=512,
    num_rows=EMBEDDED_VOCABULARY.size,
    max_len=1024,
    rope_theta=10_000.0,
)
