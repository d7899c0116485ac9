r"""Trains FB in a maze without rewards, turns prompts into policies of it, or trains what that is held against.

    python -m experiments.rlzero.train --config=configs/rlzero.py:quick --workdir=runs/fb
    python -m experiments.rlzero.train --config=configs/rlzero.py:infer/rlzero --config.init_from.run=runs/fb \
        --workdir=runs/rlzero
    python -m experiments.rlzero.train --config=configs/rlzero.py:image_reward --workdir=runs/image_reward
    python -m experiments.reproduce --paper=rlzero --preset=quick --jobs=2      all methods

What a person needs (all fields with comments: configs/rlzero.py):
  --config.init_from.run=DIR         the finished run of `quick` that infer/* takes its networks from
  --config.embedder.name=clip        with --config.embedder.path=DIR, the folder of CLIP's image encoder
  --config.imagine.sprite=cross      the body in the clips
"""

from experiments.rlzero.experiment import experiment
from rl_jax.core.main import main

if __name__ == "__main__":
    main(experiment, "configs/rlzero.py:quick")
