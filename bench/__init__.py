"""What is fast, measured against the plain way in the same run: `make bench`."""
