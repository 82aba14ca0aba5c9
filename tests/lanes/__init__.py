"""Lanes over sockets: the real dispatcher and transport against servers in a process of their own, counted there."""
