"""SQIRL: how many steps of look-ahead on the random policy's values an environment needs."""
