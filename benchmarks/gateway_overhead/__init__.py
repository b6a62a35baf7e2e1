"""What the gateway adds to a call, on a miss and on a hit."""
