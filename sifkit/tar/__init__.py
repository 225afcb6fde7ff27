"""Archives in and out: headers, streams, codecs, members."""
