"""One optimizer step and what it needs: backward passes, memory, the rate, what is watched."""
