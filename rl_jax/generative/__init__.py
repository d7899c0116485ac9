"""Consistency and diffusion models of images: networks, weights, training, samplers and reinforcement learning."""
