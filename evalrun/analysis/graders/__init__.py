"""Checks: one small pure function for each type; a check that could not be made is never a wrong answer."""
