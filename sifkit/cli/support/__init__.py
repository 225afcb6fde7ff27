"""Code that several verbs share: frame, options, console, values, progress, opening images."""
