"""RLZero: sentences to behaviours by imagining, projecting and imitating, without labels."""
