"""The benchmark's text-conditioned U-Net by diffusers in PyTorch; a process of its own, in a Python that has these.

    python diffusers_process.py SETTINGS

SETTINGS is JSON, see `DiffusersSettings` in diffusers_peer.py. The first line on standard output is
{"parameters": ...}; then for each line on standard input, "sample" or "train", a batch is sampled by all calls, or
trained on in all steps, and one line with the number of its images is written. Sampler and loss are those of
rl_jax/generative/policy.py and fine_tuning.py, written as these libraries are used: eager, gradients summed over the
chunks of a batch.
"""

import json
import sys
from typing import Any


def main(settings: dict[str, Any]) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    torch.set_default_device(settings["device"])
    dtype = getattr(torch, settings["dtype"])
    unet = UNet2DConditionModel(**settings["unet"]).to(dtype)
    optimizer = torch.optim.Adam(unet.parameters(), lr=settings["learning_rate"])
    size, chunk, calls = settings["batch_size"], settings["chunk_size"], len(settings["levels"])
    shape = (size, settings["unet"]["in_channels"], *[settings["unet"]["sample_size"]] * 2)
    timesteps, levels, stds = (torch.tensor(settings[name]) for name in ("timesteps", "levels", "stds"))
    context = torch.randn(size, settings["tokens"], settings["unet"]["cross_attention_dim"])
    told = settings["unet"]["time_cond_proj_dim"]
    guidance = None if told is None else torch.randn(1, told, dtype=dtype)

    def noise(scaled: Any, times: Any, context: Any) -> Any:
        own = None if guidance is None else guidance.expand(len(scaled), -1)
        return unet(scaled.to(dtype), times, context.to(dtype), timestep_cond=own).sample.float()

    def step_mean(states: Any, steps: Any, context: Any) -> Any:
        """LCM's consistency function, of x_0 + level * noise."""
        level, scaled_time = levels[steps].view(-1, 1, 1, 1), 10.0 * timesteps[steps].view(-1, 1, 1, 1)
        scaled = states / torch.sqrt(1.0 + level**2)
        clean = states - level * noise(scaled, timesteps[steps], context)
        total = scaled_time**2 + 0.25
        return scaled_time / torch.sqrt(total) * clean + 0.25 / total * scaled

    def log_prob(actions: Any, means: Any, steps: Any) -> Any:
        std = stds[steps].view(-1, 1, 1, 1)
        return torch.distributions.Normal(means, std).log_prob(actions).mean((1, 2, 3))

    @torch.no_grad()
    def sample() -> tuple:
        x, trajectory = levels[0] * torch.randn(shape), []
        for call in range(calls):
            steps = torch.full((size,), call)
            means = step_mean(x, steps, context)
            actions = means + stds[call] * torch.randn(shape)
            trajectory.append((x, actions, log_prob(actions, means, steps), steps, context))
            x = actions
        return tuple(torch.cat(rows) for rows in zip(*trajectory, strict=True))

    def train(rows: tuple, advantages: Any) -> None:
        chunks = torch.randperm(len(advantages)).split(chunk)
        for order in chunks:
            states, actions, old_log_prob, steps, context = (x[order] for x in rows)
            ratio = torch.exp(log_prob(actions, step_mean(states, steps, context), steps) - old_log_prob)
            clipped = ratio.clamp(1.0 - settings["clip"], 1.0 + settings["clip"])
            loss = torch.maximum(-advantages[order] * ratio, -advantages[order] * clipped).mean()
            (loss / len(chunks)).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), settings["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()

    rows, advantages = sample(), torch.randn(size).repeat(calls)
    print(json.dumps({"parameters": sum(x.numel() for x in unet.parameters())}), flush=True)
    for line in sys.stdin:
        sample() if line.strip() == "sample" else train(rows, advantages)
        if settings["device"] == "cuda":
            torch.cuda.synchronize()
        print(size, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
