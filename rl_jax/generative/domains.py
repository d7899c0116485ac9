"""The domains by name, and the networks beside their generators."""

from pathlib import Path

from rl_jax.core.config import unknown
from rl_jax.generative import digits, emoji, emoji_pretraining
from rl_jax.generative.domain import Domain
from rl_jax.generative.pretraining import Pretraining

DOMAINS = {"digits": digits.digits_domain, "emoji": emoji.emoji_domain}
PARTS = {"digits": digits.PARTS, "emoji": emoji.PARTS}  # networks beside the generator


def load_domain(name: str, data: Path, checkpoints: Path) -> Domain:
    """Loads a domain from the files `<name>.npz` of data and `<name>_<part>.npz` of parameters.

    Raises:
      ValueError: there is no such domain; the message lists the near ones.
    """
    return DOMAINS[known_domain(name)](data / f"{name}.npz", checkpoints)


def part_pretraining(name: str, part: str, data: Path, batch_size: int) -> Pretraining:
    """Makes the training of a network beside a domain's generator; of digits the batch is the whole half of the data.

    Raises:
      ValueError: there is no such domain or no such network; the message lists the near ones.
    """
    if part not in PARTS[known_domain(name)]:
        raise ValueError(unknown("config.model.kind", part, ["consistency", "diffusion", *PARTS[name]]))
    if name == "digits":
        return digits.classifier_pretraining(digits.load_digits(data / "digits.npz"), part)
    return emoji_pretraining.part_pretraining(emoji.load_emoji(data / "emoji.npz"), part, batch_size)


def known_domain(name: str) -> str:
    """Returns the name; raises ValueError where there is no such domain."""
    if name not in DOMAINS:
        raise ValueError(unknown("config.domain", name, [*DOMAINS, "pipeline"]))
    return name
