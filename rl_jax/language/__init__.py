"""Language models: the decoder, its sampler, rows of tokens, scores, real weights, and what trains on them."""
