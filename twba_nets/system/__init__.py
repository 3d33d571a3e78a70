"""System helpers of all programs: files, streams, signals, memory."""
