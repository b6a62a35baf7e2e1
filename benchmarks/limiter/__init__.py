"""Limiters side by side before a simulated provider, in virtual time: ``python -m benchmarks.limiter``."""
