"""Ask it: the wire, retries, lanes and the transport seam."""
