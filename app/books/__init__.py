"""Order books out of stored events: what a row means, whether it follows, what the book is then, and whether it can be right.

Pure, and written without the code that recorded the rows (app/exchanges, app/sequence.py): what is checked here is what
stands in the archive. Read `rebuild.py` first.
"""
