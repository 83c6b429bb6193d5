"""Retraining: `python -m pillow_cwic.training train | evaluate | export`."""
