"""The tables of the paper: its numbers as data in `paper/`, and ours beside them."""
