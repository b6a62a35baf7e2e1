"""What holds past one process: a cluster of Redis, and several gateways."""
