"""What lets a run survive: checkpoints, agreement, heartbeat, exit codes."""
