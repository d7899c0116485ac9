"""The embedded behaviour policies: multi-layer perceptrons in numpy with their own action noise.

Roll-out workers import this module, so it needs numpy alone. `policies/SOURCE.md` describes the files in `policies/`.
"""

import dataclasses
from pathlib import Path

import numpy as np

POLICY_DIR = Path(__file__).parent / "policies"
LOG_STD_BOUNDS = (-20.0, 2.0)  # of state-dependent noise, as in SAC


@dataclasses.dataclass(frozen=True)
class Policy:
    """Weights of one behaviour policy; all arrays float32."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]  # (W [in, out], b [out]) each
    activation: str  # between layers: tanh, relu or none
    head: str  # tanh: squash the noisy mean; clip: clip it to [-1, 1]
    obs_mean: np.ndarray | None  # [O]
    obs_scale: np.ndarray | None  # [O], the factor after centring
    obs_clip: float
    log_std: np.ndarray | None  # [A] state-independent noise, None without
    log_std_layer: tuple[np.ndarray, np.ndarray] | None  # state-dependent noise, from the last hidden layer

    def heads(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean and logarithm of the deviation [B, A], before the head, at observations [B, O]; None without noise."""
        hidden = observations.astype(np.float32)
        if self.obs_mean is not None:
            hidden = np.clip((hidden - self.obs_mean) * self.obs_scale, -self.obs_clip, self.obs_clip)
        for weights, bias in self.layers[:-1]:
            hidden = hidden @ weights + bias
            if self.activation == "tanh":
                hidden = np.tanh(hidden)
            elif self.activation == "relu":
                hidden = np.maximum(hidden, 0.0)
        weights, bias = self.layers[-1]
        log_std = self.log_std
        if log_std is None and self.log_std_layer is not None:
            log_std = np.clip(hidden @ self.log_std_layer[0] + self.log_std_layer[1], *LOG_STD_BOUNDS)
        return hidden @ weights + bias, log_std

    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Actions [B, A] float32 in [-1, 1]; observations [B, O] and standard normal noise [B, A] (None: the mode)."""
        actions, log_std = self.heads(observations)
        if noise is not None and log_std is not None:
            actions = actions + np.exp(log_std) * noise.astype(np.float32)
        return np.tanh(actions) if self.head == "tanh" else np.clip(actions, -1.0, 1.0)

    def with_deviation(self, deviation: float) -> "Policy":
        """The same policy with Gaussian noise of one deviation before the head; without noise at 0."""
        log_std = np.full(len(self.layers[-1][1]), np.log(deviation), np.float32) if deviation else None
        return dataclasses.replace(self, log_std=log_std, log_std_layer=None)


def load_policy(name: str) -> Policy:
    """Reads the embedded policy `name`: a file of `policies/`, or of an absolute path, without its suffix."""
    path = POLICY_DIR / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such behaviour policy")
    return policy_from_arrays(dict(np.load(path, allow_pickle=False)))


def policy_from_arrays(arrays: dict[str, np.ndarray]) -> Policy:
    """Builds a policy from the arrays of its file (layout: `policies/SOURCE.md`)."""
    def weights(name: str) -> np.ndarray:
        return np.asarray(arrays[name], np.float32)

    activation, head = str(arrays["activation"]), str(arrays["head"])
    if activation not in ("tanh", "relu", "none") or head not in ("tanh", "clip"):
        raise ValueError(f"policy with activation {activation!r} and head {head!r}: neither is known")
    normalised = "obs_mean" in arrays
    scale = 1.0 / np.sqrt(arrays["obs_var"].astype(np.float64) + float(arrays["obs_eps"])) if normalised else None
    return Policy(
        layers=tuple((weights(f"W{i}"), weights(f"b{i}")) for i in range(int(arrays["n_layers"]))),
        activation=activation,
        head=head,
        obs_mean=weights("obs_mean") if normalised else None,
        obs_scale=scale.astype(np.float32) if normalised else None,
        obs_clip=float(arrays["obs_clip"]) if normalised else np.inf,
        log_std=weights("log_std") if "log_std" in arrays else None,
        log_std_layer=(weights("logstd_W"), weights("logstd_b")) if "logstd_W" in arrays else None,
    )
