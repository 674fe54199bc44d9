"""One peer of `bench segment` behind the line protocol of bench/src/segment/protocol.rs.

`peer.py NAME` reads requests from standard input, one JSON object a line, and answers each with one line:

    open    keeps where the data is, loads the queries, says which version of the library this is
    build   loads the vectors, builds with so many threads, frees them: time, memory, size of the saved index
    search  all queries in one call with so many threads: time and the rows found
    single  all queries one by one: the time of each, the call from Python included
"""

import gc
import importlib
import json
import os
import sys
import tempfile
import time

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Peer:
    """What the measurement around every library is; the libraries stand in the modules beside this one."""

    def __init__(self, name, library):
        self.name = name
        self.library = library
        self.system = None

    def open(self, request):
        import numpy

        self.request = request
        queries = numpy.load(request["queries"])[: request["max_queries"]]
        self.queries = prepared(queries, request["metric"])
        self.library.check(self.name, request["metric"])
        return {"version": self.library.version(self.name)}

    def build(self, request):
        import numpy

        threads = request["threads"]
        pin(self.request["cpus"][:threads])
        self.system = None
        free()
        before = memory("VmRSS")
        vectors = numpy.load(self.request["vectors"])[: self.request["rows"]]
        vectors = prepared(vectors, self.request["metric"])
        free()
        with tempfile.TemporaryDirectory(dir=self.request["work_dir"]) as place:
            build = self.library.builder(self.name, vectors, self.request, threads, place)
            free()
            forget_peak()
            start = memory("VmRSS")
            clock = self.clock(threads)
            since = clock()
            self.system = build()
            seconds = clock() - since
            peak = memory("VmHWM") - start
            del vectors, build
            free()
            ram = memory("VmRSS") - before
            disk = self.system.save(os.path.join(place, "index"))
            degree = self.system.degree(os.path.join(place, "index"))
        return {"seconds": seconds, "peak_bytes": max(peak, 0), "ram_bytes": max(ram, 0), "disk_bytes": disk,
                "degree": degree}

    def search(self, request):
        threads = request["threads"]
        pin(self.request["cpus"][:threads])
        self.system.set(request["ef"], threads)
        clock = self.clock(threads)
        since = clock()
        rows = self.system.search(self.queries, self.request["k"])
        seconds = clock() - since
        return {"seconds": seconds, "rows": rows.tolist()}

    def single(self, request):
        pin(self.request["cpus"][:1])
        self.system.set(request["ef"], 1)
        k, times, clock = self.request["k"], [], self.clock(1)
        for at in range(len(self.queries)):
            query = self.queries[at : at + 1]
            since = clock()
            self.system.search(query, k)
            times.append(clock() - since)
        return {"seconds": times}

    def clock(self, threads):
        cpu = self.request["clock"] == "cpu" and threads == 1
        return time.process_time if cpu else time.perf_counter


def prepared(vectors, metric):
    """As f32, and of length one under cosine, so that libraries may use the inner product."""
    import numpy

    vectors = numpy.ascontiguousarray(vectors, dtype=numpy.float32)
    if metric != "cosine":
        return vectors
    norms = numpy.sqrt(numpy.einsum("ij,ij->i", vectors, vectors, dtype=numpy.float64))
    return numpy.ascontiguousarray(vectors / norms[:, None], dtype=numpy.float32)


def pin(cpus):
    """Threads that exist already are pinned too: libraries keep theirs."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)


def free():
    """Gives freed memory back to the system, so that resident memory says what is in use."""
    import ctypes

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def memory(field):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"the system does not say {field}")


def main():
    name = sys.argv[1]
    # answers go where standard output was; what a library prints goes to standard error
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    module = "peer_" + name.split("-")[0]
    peer = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            peer = peer or Peer(name, importlib.import_module(module))
            answer = getattr(peer, request["do"])(request)
        except ImportError as error:
            answer = {"error": f"not installed: {error}"}
        except Exception as error:  # whatever it is, the driver wants to know
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
