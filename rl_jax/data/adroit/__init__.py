"""The `adroit` data sets: human demonstrations at Adroit's door, replayed, and the expert that was trained on them."""
