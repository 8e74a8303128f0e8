"""What answers are worth: scored, counted, with intervals; which are kept."""
