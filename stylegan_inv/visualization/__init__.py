"""Contact sheets, curves, animations and HTML pages."""
