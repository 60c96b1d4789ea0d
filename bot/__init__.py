"""Animatic: brings pictures to life in Discord."""

__version__ = "0.1.0"
