"""Figures about evalrun, and how to repeat them."""
