"""Check of whole images, one or many."""
