"""Trained networks for other tools and for hardware. Needs the optional packages of `morphax[export]`."""
