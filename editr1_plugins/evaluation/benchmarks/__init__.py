"""One file per benchmark: its schema, its official arithmetic (faults included), and its raw format of answers.

None of the data could be downloaded where this was written: the loaders follow the published schemas, read from the
official code, and are tested on generated folders of exactly that form.
"""
