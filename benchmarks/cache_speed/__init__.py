"""Where the time of a lookup goes, one module per part: ``python -m benchmarks.cache_speed.search``."""
