"""What compressing a prompt saves, and what it loses."""
