# SPDX-License-Identifier: MIT
"""How every side of a comparison behaves: a process that is started as

    SIDE WEIGHTS WORK TYPE BATCH SOURCE TARGET THREADS START MODE

loads its model, says in one line of JSON what it computed (`check`: tokens, or the loss of a
training step), and then answers each line SECONDS with the times of as many runs as fit.
"""

import json
import sys
import time
from dataclasses import dataclass


@dataclass
class Call:
    """The arguments of a side."""

    weights: str  # directory as Transformers saves it
    work: str  # encode, embed, prefill, decode, load or train
    type: str  # f32, bf16, int8, ...
    batch: int
    source: int
    target: int
    threads: int
    start: str  # first token of a decoder's prompt, or "mixed"
    mode: str  # what else a peer wants to know

    def tokens(self, vocabulary, rows=None, columns=None):
        """The same tokens as linnet's works::some_tokens(), as rows."""
        rows, columns = rows or self.batch, columns or self.source
        flat = [2 + i * 7919 % (vocabulary - 2) for i in range(rows * columns)]
        table = [flat[r * columns : (r + 1) * columns] for r in range(rows)]
        if self.start != "mixed":
            for row in table:
                row[0] = int(self.start)
        return table


def arguments():
    """The arguments this process was started with."""
    text = sys.argv[1:10]
    return Call(*text[:3], *(int(n) for n in text[3:7]), *text[7:])


def mean(hidden):
    """The vector of a text from its hidden states [tokens, width]: their mean, of length 1."""
    vector = hidden.mean(0)
    return [float(x) for x in vector / (vector**2).sum() ** 0.5]


def serve(run, check, prepare=lambda: None, agreement=None, **more):
    """Times run() after an untimed prepare(). run() may return the milliseconds it wants counted
    and those of the processors. `agreement` is what to say where `check` cannot be compared; `more`
    are further members of what is said."""
    prepare()
    run()
    print(json.dumps({"check": check, "agreement": agreement, **more}), flush=True)
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        ms, cpu_ms = [], []
        while not ms or time.perf_counter() < end:
            prepare()
            cpu, start = time.process_time(), time.perf_counter()
            own = run()
            wall, used = time.perf_counter() - start, time.process_time() - cpu
            one, other = own if isinstance(own, tuple) else (1e3 * wall, 1e3 * used)
            ms.append(one)
            cpu_ms.append(other)
        print(json.dumps({"ms": ms, "cpu_ms": cpu_ms}), flush=True)
