"""One small pure function for each check."""
