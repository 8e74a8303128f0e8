"""What can be seen to be wrong before the first step: of the inputs, and by a short trial."""
