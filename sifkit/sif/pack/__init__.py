"""Images taken apart into files with a manifest, and put together again."""
