"""Contact sheets, charts, animations and HTML pages."""
