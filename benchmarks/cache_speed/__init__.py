"""What a lookup costs, part by part and line by line: ``python -m benchmarks.cache_speed``."""
