"""Wire layouts, each declared once in construct, and the codecs derived from the same declarations."""
