"""Image-to-image translation tasks."""
