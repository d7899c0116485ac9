"""The words of Wordle."""
