"""What all programs need of the system: files, streams, signals, memory."""
