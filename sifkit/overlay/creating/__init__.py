"""Making overlay images: the source and the options become a plan, and the plan an image."""
