"""What shall be asked: the job file, its samples, and the lazy plan of requests."""
