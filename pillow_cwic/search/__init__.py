"""What an encoder tries beyond the network's own answer: other codes, other qualities."""
