"""How a substrate, or the readout behind it, is changed until it answers as wanted."""
