"""Physical systems that compute, one file a system."""
