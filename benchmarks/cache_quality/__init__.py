"""How often a cache answers public questions, and how often wrongly: ``python -m benchmarks.cache_quality``."""
