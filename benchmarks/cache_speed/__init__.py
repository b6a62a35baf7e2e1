"""What a lookup costs, part by part, beside others that do the same: ``python -m benchmarks.cache_speed.embedders`` …"""
