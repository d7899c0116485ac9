"""Text to learn from: small sets of documents, answers and preferences, and a user's own in the same form."""
