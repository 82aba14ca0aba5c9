"""Run prompts against many models and trust what comes out."""

__version__ = "0.1.0"
