"""RLEEGNet: motor imagery classified by CSP and DQN, under protocols that leak and one that does not."""
