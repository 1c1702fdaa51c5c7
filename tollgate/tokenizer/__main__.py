"""`python -m tollgate.tokenizer`: counts what it reads, a JSON list of texts a line, and answers a number a line.

Ends with its input, so that it never outlives whoever started it.
"""

import sys

import orjson

from tollgate.tokenizer import count

for line in sys.stdin.buffer:
    sys.stdout.write(f"{count(orjson.loads(line))}\n")
    sys.stdout.flush()
