"""Well-known networks in plain torch, one family a file, at their real widths and with seeded random weights."""
