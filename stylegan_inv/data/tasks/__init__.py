"""Translation tasks: what a method sees in place of its target."""
