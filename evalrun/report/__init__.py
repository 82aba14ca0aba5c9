"""Show it: HTML, Markdown, JUnit and JSON from one model."""
