"""The convolutional entropy coder in exact integers (paper, section 3.4.

Docs/format.md, section 5).
"""
