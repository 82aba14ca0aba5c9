"""Tests of the command line, from words to exit codes."""
