"""Methods that find editing directions, the scores that they need, and the effect of a direction."""
