"""A campaign: a template, rows of a product feed, placements and variants, and all the pictures that follow from them.

Everything here is arithmetic on text, without a database or a network, so that the command line and the API say the
same: ``source`` reads the file, ``spec`` is its form, ``rows`` its data, ``expansion`` what is to be rendered.
"""
