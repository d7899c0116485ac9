"""Generative models: consistency and diffusion models, their samplers, and reinforcement learning of these."""
