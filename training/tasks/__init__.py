"""Tasks that a backbone is trained on with labels, each a Method of its own."""
