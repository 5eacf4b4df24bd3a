"""Reports about a run or a sweep as one HTML page."""
