"""File formats of generators. Reading them executes nothing."""
