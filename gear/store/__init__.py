"""Where files come from and where they are kept: the cache, pinned packages, a pickle reader that runs nothing.

A leaf of the import graph: it imports nothing of `gear`, and anything may import it.
"""
