"""What the peers run: each as short as their own documentation writes it. They run in venvs without evalrun."""
