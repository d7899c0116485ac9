"""The field's mathematics as pure functions of arrays; knows no network."""
