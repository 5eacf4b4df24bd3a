"""Files, checks, parallel work, timing; knows nothing of the package."""
