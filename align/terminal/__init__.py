"""What a person reads: progress, findings, sizes, the command that goes on."""
