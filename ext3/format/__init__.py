"""On-disk structures of ext3: declared, decoded, checked, searched and packed, a module each.

``X.py`` treats one record at a time in plain Python, for filesystems that are mounted or changed file by file: numpy takes
longer to load than most of that. ``X_columns.py`` treats many at once in numpy, for whole tables and trees. The first never
imports the second, but in functions that return its tables.
"""
