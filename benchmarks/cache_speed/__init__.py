"""What a lookup costs, part by part, against the bare thing it stands on."""
